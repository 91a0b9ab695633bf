//! The EndpointSlice of `-rw` and the Lease before a real kube-apiserver, by the agent's own clients
//! (rule 12a): what one instance wrote while it was primary takes nobody away from the next one.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use matriarch_agent::endpoint::{Error, ReadWriteEndpoint};
use matriarch_agent::lease::LeaseClient;
use matriarch_agent::options::{AgentOptions, TablespacePlace};
use matriarch_agent::root::Root;
use matriarch_api::{identity::Identity, names};
use matriarch_e2e::apiserver::{self, ApiServer};
use matriarch_e2e::turn;
use matriarch_pg::SystemId;
use matriarch_plan::protocol::{
    Address, Base, History, Holder, Lease, LeaseReading, LeaseRecord, LeaseWriting, Member,
    Position, Span, Term,
};
use serde_json::json;
use tokio::sync::watch;

const NAMESPACE: &str = "endpoint";
const CLUSTER: &str = "c";
const PORT: u16 = 5432;

/// An instance's agent, as far as it writes the two objects.
struct Instance {
    name: String,
    host: String,
    lease: LeaseClient,
    endpoint: ReadWriteEndpoint,
}

impl Instance {
    fn new(server: &ApiServer, serial: u8) -> Result<Self> {
        let name = format!("{CLUSTER}-{serial}");
        let root = Root::new(server.directory().join(&name));
        std::fs::create_dir_all(root.service_account())?;
        std::fs::copy(server.directory().join("ca.crt"), root.service_account().join("ca.crt"))?;
        std::fs::write(root.service_account().join("token"), apiserver::ADMIN_TOKEN)?;
        let uri: http::Uri = server.url().parse()?;
        let options = AgentOptions {
            instance: name.clone(),
            namespace: NAMESPACE.to_owned(),
            pod_uid: format!("uid-{serial}"),
            address: std::net::Ipv4Addr::new(10, 0, 0, serial).into(),
            cluster: CLUSTER.to_owned(),
            identity: "matriarch".to_owned(),
            api_server: (
                uri.host().context("a host")?.to_owned(),
                uri.port_u16().context("a port")?,
            ),
            root,
            path: std::ffi::OsString::new(),
            own_address_only: true,
            tablespaces: TablespacePlace::DataDirectory,
        };
        let (_, known) = watch::channel(None);
        Ok(Self {
            host: options.address.to_string(),
            lease: LeaseClient::new(&options, Identity::Matriarch),
            endpoint: ReadWriteEndpoint::new(&options, Identity::Matriarch, known),
            name,
        })
    }

    fn record(&self, term: u64) -> LeaseRecord {
        let member = Member {
            name: self.name.as_str().into(),
            incarnation: format!("data-of-{}", self.name).as_str().into(),
            address: Address { host: self.host.clone(), postgres_port: PORT, agent_port: 8000 },
        };
        LeaseRecord::encode(&Lease {
            holder: Some(Holder {
                name: member.name.clone(),
                incarnation: member.incarnation.clone(),
                pod_uid: self.name.replace(CLUSTER, "uid").as_str().into(),
                container_id: "container".into(),
            }),
            term: Term(term),
            duration: Span::seconds(10),
            system_id: SystemId(7),
            history: History::default(),
            history_published: true,
            position: Position::default(),
            cohort: vec![member],
            stragglers: Vec::new(),
            quorum: None,
            quorum_until: None,
            release: None,
            reassertions: 0,
            edition: 0,
        })
    }

    /// Takes the Lease, whatever it says.
    async fn take(&mut self, term: u64) -> Result<()> {
        let base = match self.lease.read().await {
            LeaseReading::Found { version, .. } => Base::Version(version),
            LeaseReading::Absent => Base::Absent,
            other => anyhow::bail!("{other:?}"),
        };
        let writing = self.lease.write(base, &self.record(term)).await;
        ensure!(matches!(writing, LeaseWriting::Written(_)), "{writing:?}");
        Ok(())
    }

    async fn point(&self, term: u64) -> Result<(), Error> {
        self.endpoint.point_to(&self.host, PORT, Term(term)).await
    }
}

/// The object as the operator makes it.
async fn make_slice(slices: &Api<EndpointSlice>) -> Result<()> {
    let slice = serde_json::from_value(json!({
        "metadata": {
            "name": names::endpoint_slice_rw(CLUSTER),
            "labels": {"kubernetes.io/service-name": names::service_rw(CLUSTER)},
        },
        "addressType": "IPv4",
        "endpoints": [],
    }))?;
    slices.create(&PostParams::default(), &slice).await?;
    Ok(())
}

/// Where `-rw` leads.
async fn leads_to(slices: &Api<EndpointSlice>) -> Result<Vec<String>> {
    let slice = slices.get(&names::endpoint_slice_rw(CLUSTER)).await?;
    Ok(slice.endpoints.into_iter().flat_map(|it| it.addresses).collect())
}

async fn slices(client: Client) -> Result<Api<EndpointSlice>> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(NAMESPACE, &PatchParams::apply("test"), &Patch::Apply(&namespace)).await?;
    let slices = Api::namespaced(client, NAMESPACE);
    make_slice(&slices).await?;
    Ok(slices)
}

#[tokio::test]
async fn a_former_primary_leads_nobody_away_from_the_next() -> Result<()> {
    let _turn = turn::wait()?;
    let Some(server) = apiserver::shared()? else { return Ok(()) };
    let slices = slices(server.client().await?).await?;
    let (mut first, mut second) = (Instance::new(server, 1)?, Instance::new(server, 2)?);

    // Nobody has said under which term it was written: the Lease is asked.
    ensure!(matches!(first.point(1).await, Err(Error::Lease(_))), "there is no Lease");
    first.take(1).await?;
    first.point(1).await?;
    first.point(1).await.context("a renewal")?;
    ensure!(leads_to(&slices).await? == [first.host.as_str()]);

    second.take(2).await?;
    second.endpoint.look().await;
    second.point(2).await?;
    // The first one goes by the version of its own last write, as what lies in the buffers of a
    // machine does that was cut off.
    let late = first.point(1).await;
    ensure!(matches!(late, Err(Error::Superseded)), "{late:?}");
    let fresh = Instance::new(server, 1)?.point(1).await;
    ensure!(matches!(fresh, Err(Error::Superseded)), "{fresh:?}");
    first.endpoint.remove(&first.host).await.context("it is out already")?;
    ensure!(leads_to(&slices).await? == [second.host.as_str()]);

    // Somebody takes the Lease back: the term of the EndpointSlice holds its holder up for nothing.
    first.take(1).await?;
    first.point(1).await.context("the Lease was taken back")?;
    ensure!(leads_to(&slices).await? == [first.host.as_str()]);

    second.take(3).await?;
    second.endpoint.remove(&first.host).await?;
    ensure!(leads_to(&slices).await?.is_empty());
    second.point(3).await?;
    slices.delete(&names::endpoint_slice_rw(CLUSTER), &DeleteParams::default()).await?;
    let absent = second.point(3).await;
    ensure!(matches!(absent, Err(Error::Absent)), "{absent:?}");
    make_slice(&slices).await?;
    second.point(3).await.context("the operator made it again")?;
    ensure!(leads_to(&slices).await? == [second.host.as_str()]);
    Ok(())
}
