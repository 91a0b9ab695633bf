//! What can go wrong: what it is, where, and what to do.

use std::path::PathBuf;

/// Why a verb could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kubeconfig, or one that cannot be used.
    #[error("cannot use the kubeconfig; set KUBECONFIG or give --kubeconfig FILE")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// No client can be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// There is no such cluster.
    #[error("there is no cluster {wanted} in namespace {namespace}; {known}")]
    NoCluster {
        /// The one asked for.
        wanted: String,
        /// Where.
        namespace: String,
        /// Those that there are.
        known: String,
    },
    /// There is no such instance.
    #[error("cluster {cluster} has no instance {wanted}; {known}")]
    NoInstance {
        /// The one asked for.
        wanted: String,
        /// Of which cluster.
        cluster: String,
        /// Those that there are.
        known: String,
    },
    /// The user's rights do not suffice.
    #[error(
        "you may not {verb} {resource} in namespace {namespace}: ask for a Role that allows \
         {verb} on {resource} (the API server says: {answer})"
    )]
    Forbidden {
        /// The verb of the API.
        verb: &'static str,
        /// The resource.
        resource: String,
        /// Where.
        namespace: String,
        /// In the server's words.
        answer: String,
    },
    /// A name that no namespace can have.
    #[error(
        "{name:?} cannot be a namespace: lower-case letters, digits and hyphens, at most 63, no \
         hyphen at either end"
    )]
    NotANamespace {
        /// The name.
        name: String,
    },
    /// The kinds are not installed.
    #[error(
        "the API server knows no {resource}: the operator is not installed there, or serves under \
         another --api-identity than this one"
    )]
    NotInstalled {
        /// The resource.
        resource: String,
    },
    /// The API server refuses, or does not answer.
    #[error("cannot {verb} {resource} in namespace {namespace}")]
    Api {
        /// The verb of the API.
        verb: &'static str,
        /// The resource.
        resource: String,
        /// Where.
        namespace: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// What was asked for makes no sense now.
    #[error("{0}")]
    Refused(String),
    /// The fence cannot be read.
    #[error("cannot change the fence of cluster {cluster}: mend the annotation by hand first")]
    Fence {
        /// The cluster.
        cluster: String,
        /// What is wrong with it.
        #[source]
        source: matriarch_api::annotations::FencedError,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is no manifest.
    #[error("{path} is no manifest: {why}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A program does not start.
    #[error("cannot run {program}; {cure}")]
    Program {
        /// The program.
        program: String,
        /// What to do.
        cure: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing can be printed.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// The answer has no such form.
    #[error("cannot write the answer as {form}: {why}")]
    Form {
        /// JSON or YAML.
        form: &'static str,
        /// Why not.
        why: String,
    },
}

/// `there are: a, b`, or that there is none.
pub fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    if names.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    }
}
