//! `status CLUSTER`: the sections of CloudNativePG's plugin, from objects, and from what agents
//! measure when they are asked.

use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::measured;
use crate::observed::Observed;
use crate::session::{Connection, Session};
use crate::text::print;

mod replication;
mod sections;

pub use sections::render;

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster.
    pub cluster: String,
    /// More: -v for roles and budgets, -vv for configuration and certificates.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The form.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Shows a cluster.
///
/// # Errors
/// If the Cluster cannot be read.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let mut observed = Box::pin(Observed::read(session, &arguments.cluster)).await?;
    let (statistics, errors) = Box::pin(measured::read(session, &observed.pods)).await;
    observed.statistics = statistics;
    observed.errors.extend(errors);
    match arguments.output {
        Form::Text => print(&render(&observed, arguments.verbose, session.identity)),
        Form::Json => print(&format!("{:#}\n", document(&observed)?)),
        Form::Yaml => {
            let text = serde_saphyr::to_string(&document(&observed)?)
                .map_err(|error| Error::Form { form: "YAML", why: error.to_string() })?;
            print(&text)
        }
    }
}

/// All that was read, for programs: the objects as they are, but for the planner's memory and the
/// owners of fields, which are nobody else's concern.
///
/// # Errors
/// If an object cannot be written as JSON.
pub fn document(observed: &Observed) -> Result<Value, Error> {
    let mut cluster = observed.cluster.clone();
    cluster.metadata.managed_fields = None;
    if let Some(status) = &mut cluster.status {
        status.memory = None;
    }
    let mut instances = observed.instances.clone();
    for instance in &mut instances {
        instance.metadata.managed_fields = None;
    }
    let pods: Vec<Value> = observed
        .pods
        .values()
        .map(|pod| {
            let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
            json!({
                "name": pod.name_any(),
                "node": spec.and_then(|spec| spec.node_name.as_ref()),
                "phase": status.and_then(|status| status.phase.as_ref()),
                "qosClass": status.and_then(|status| status.qos_class.as_ref()),
                "address": status.and_then(|status| status.pod_ip.as_ref()),
            })
        })
        .collect();
    Ok(json!({
        "cluster": value(&cluster)?,
        "instances": value(&instances)?,
        "pods": pods,
        "lease": value(&observed.lease)?,
        "statistics": value(&observed.statistics)?,
        "errors": observed.errors,
    }))
}

fn value(object: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(object)
        .map_err(|error| Error::Form { form: "JSON", why: error.to_string() })
}
