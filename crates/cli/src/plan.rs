//! `plan -f FILE`: what a changed Cluster would do. The pure planner runs here over the present
//! world with the changed Cluster in it; the API server judges the change by a dry run. Nothing is
//! written.

use std::path::PathBuf;

use jiff::Timestamp;
use kube::api::{DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use matriarch_api::{Cluster, Kind};
use matriarch_plan::{Finding, Plan, World, lint, plan};
use matriarch_render::setup::{Owner, Setup};
use matriarch_render::{Objects, Resolved, observe, resolve};
use serde_json::Value;

use crate::error::Error;
use crate::session::{Connection, Session};
use crate::text::print;

pub mod file;
mod gather;
mod show;

pub use show::{Foreseen, render};

/// Arguments of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Manifest with the changed Clusters; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub filename: PathBuf,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// Shows what the Clusters of a manifest would do.
///
/// # Errors
/// If the manifest cannot be read, or the API server refuses it.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let manifest = file::read(&arguments.filename, session.identity)?;
    let mut text = String::new();
    for ignored in &manifest.ignored {
        text.push_str(&format!("{ignored} is no Cluster: nothing is planned for it\n"));
    }
    for wanted in &manifest.clusters {
        let foreseen = Box::pin(foresee(session, wanted)).await?;
        text.push_str(&render(&foreseen));
    }
    print(&text)
}

async fn foresee(session: &Session, wanted: &Value) -> Result<Foreseen, Error> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let session = match wanted["metadata"]["namespace"].as_str() {
        Some(namespace) => Session { namespace: namespace.to_owned(), ..session.clone() },
        None => session.clone(),
    };
    let resource = session.resource(Kind::Cluster);
    let present = session.clusters().get_opt(name).await;
    let present = present.map_err(|error| session.refused("get", &resource, error))?;
    let changed = file::merge(present.as_ref(), wanted, &session.namespace);
    let (changed, unchecked) = dry_run(&session, present.as_ref(), changed).await?;
    let dropped = file::dropped(&wanted["spec"], &changed["spec"]);
    let read = |value: Value| {
        serde_json::from_value::<Cluster>(value)
            .map_err(|error| Error::Refused(format!("cluster {name} cannot be read: {error}")))
    };
    let changed = read(changed)?;
    let now_ms = Timestamp::now().as_millisecond();
    let pass = Pass::run(&session, &changed, present.as_ref(), now_ms).await;
    let before = present.as_ref().map(|cluster| pass.again(cluster));
    let changes = file::changes(present.as_ref(), &changed);
    Ok(Foreseen {
        cluster: changed,
        is_new: present.is_none(),
        changes,
        dropped,
        unchecked,
        before: before.map(|(_, plan)| plan),
        world: pass.world,
        plan: pass.plan,
        findings: pass.findings,
        assumed: pass.assumed,
    })
}

/// Lets the API server judge and default the changed Cluster without writing it; if the user may
/// not even ask that, the Cluster as it is and why it was not judged.
async fn dry_run(
    session: &Session,
    present: Option<&Cluster>,
    mut changed: Value,
) -> Result<(Value, Option<String>), Error> {
    let gvk = GroupVersionKind::gvk(
        session.identity.group(),
        session.identity.version(),
        Kind::Cluster.name(),
    );
    let kind = kube::api::ApiResource::from_gvk_with_plural(&gvk, Kind::Cluster.plural());
    let api: Api<DynamicObject> =
        Api::namespaced_with(session.client.clone(), &session.namespace, &kind);
    let unreadable = |error: serde_json::Error| {
        Error::Refused(format!("the changed Cluster makes no object: {error}"))
    };
    let object: DynamicObject = serde_json::from_value(changed.clone()).map_err(unreadable)?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let (verb, judged) = match present {
        Some(_) => ("update", api.replace(&object.name_any(), &params, &object).await),
        None => ("create", api.create(&params, &object).await),
    };
    match judged {
        Ok(judged) => {
            let mut judged = serde_json::to_value(judged).map_err(unreadable)?;
            // A dry run answers with the object as it would be written: the status is not.
            judged["status"] = changed["status"].take();
            Ok((judged, None))
        }
        Err(kube::Error::Api(answer)) if answer.code == 403 => {
            let why = format!("you may not {verb} clusters: the API server has not judged this");
            Ok((changed, Some(why)))
        }
        Err(error) => Err(session.refused(verb, &session.resource(Kind::Cluster), error)),
    }
}

/// One pass of planning, as the operator would make it.
struct Pass {
    setup: Setup,
    objects: Objects,
    world: World,
    plan: Plan,
    findings: Vec<Finding>,
    assumed: Vec<String>,
}

impl Pass {
    async fn run(
        session: &Session,
        changed: &Cluster,
        present: Option<&Cluster>,
        now_ms: i64,
    ) -> Self {
        let gathered = gather::read(session, changed, present, now_ms).await;
        let (setup, objects) = (gathered.setup, gathered.objects);
        let (world, plan) = work_out(&setup, changed, &objects);
        let findings = lint(&world, &plan);
        Self { setup, objects, world, plan, findings, assumed: gathered.assumed }
    }

    /// The same for another state of the Cluster: what would be done without the change.
    fn again(&self, cluster: &Cluster) -> (World, Plan) {
        work_out(&self.setup, cluster, &self.objects)
    }
}

fn work_out(setup: &Setup, cluster: &Cluster, objects: &Objects) -> (World, Plan) {
    let owner = Owner { setup, cluster };
    let mut resolved: Resolved = resolve(&owner, &objects.references);
    resolved.note_versions(&objects.secrets);
    let world = observe(&owner, &resolved, objects);
    let plan = plan(&world);
    (world, plan)
}
