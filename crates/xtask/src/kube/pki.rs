//! Certificates and kubeconfigs.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::cluster::{self, API_SERVICE, Cluster, Machine};
use crate::command;

/// A client of the API server, and whom its certificate names.
struct Identity {
    file: String,
    subject: String,
    names: String,
}

/// Makes what is missing.
pub fn make(cluster: &Cluster) -> Result<()> {
    cluster::make(&cluster.pki(""))?;
    make_authority(cluster)?;
    for identity in identities(cluster) {
        make_certificate(cluster, &identity)?;
        write_kubeconfig(cluster, &identity.file)?;
    }
    Ok(())
}

fn identities(cluster: &Cluster) -> Vec<Identity> {
    let of = |file: &str, subject: &str| Identity {
        file: file.to_owned(),
        subject: subject.to_owned(),
        names: format!("DNS:{file}"),
    };
    let api = Machine::Control.address();
    let service = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                   DNS:kubernetes.default.svc.cluster.local,DNS:localhost";
    let mut all = vec![
        Identity {
            names: format!("{service},IP:127.0.0.1,IP:{API_SERVICE},IP:{api}"),
            ..of("apiserver", "/CN=kube-apiserver")
        },
        of("admin", "/O=system:masters/CN=admin"),
        of("controller-manager", "/CN=system:kube-controller-manager"),
        of("scheduler", "/CN=system:kube-scheduler"),
        of("proxy", "/CN=system:kube-proxy"),
        of("front-proxy", "/CN=front-proxy-client"),
    ];
    for node in cluster.nodes() {
        let name = node.name();
        all.push(Identity {
            names: format!("DNS:{name},IP:{}", node.address()),
            ..of(&name, &format!("/O=system:nodes/CN=system:node:{name}"))
        });
    }
    all
}

const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn make_authority(cluster: &Cluster) -> Result<()> {
    let (certificate, key) = (cluster.pki("ca.crt"), cluster.pki("ca.key"));
    if !certificate.is_file() {
        let mut request = openssl(&["req", "-x509", "-days", "3650", "-subj", "/CN=kubernetes"]);
        request.args(CURVE).arg("-keyout").arg(key).arg("-out").arg(certificate);
        command::run_quietly(&mut request)?;
    }
    let (private, public) = (cluster.pki("accounts.key"), cluster.pki("accounts.pub"));
    if !public.is_file() {
        command::run_quietly(openssl(&["genrsa", "-out"]).arg(&private).arg("2048"))?;
        let mut extract = openssl(&["rsa", "-pubout", "-in"]);
        command::run_quietly(extract.arg(&private).arg("-out").arg(&public))?;
    }
    Ok(())
}

fn make_certificate(cluster: &Cluster, identity: &Identity) -> Result<()> {
    let at = |end: &str| cluster.pki(&format!("{}.{end}", identity.file));
    if at("crt").is_file() {
        return Ok(());
    }
    let mut request = openssl(&["req", "-subj", &identity.subject]);
    request.args(CURVE).arg("-keyout").arg(at("key")).arg("-out").arg(at("csr"));
    command::run_quietly(&mut request)?;
    let extensions = format!(
        "subjectAltName={}\nextendedKeyUsage=serverAuth,clientAuth\n\
         keyUsage=digitalSignature,keyEncipherment\n",
        identity.names
    );
    cluster::write(&at("ext"), &extensions)?;
    let mut sign = openssl(&["x509", "-req", "-days", "3650", "-CAcreateserial", "-in"]);
    sign.arg(at("csr")).arg("-CA").arg(cluster.pki("ca.crt"));
    sign.arg("-CAkey").arg(cluster.pki("ca.key"));
    sign.arg("-extfile").arg(at("ext")).arg("-out").arg(at("crt"));
    command::run_quietly(&mut sign)?;
    Ok(())
}

fn write_kubeconfig(cluster: &Cluster, name: &str) -> Result<()> {
    let shown = |path: &Path| format!("{:?}", path.display().to_string());
    let text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: matriarch\n  \
           cluster: {{server: \"https://{}:6443\", certificate-authority: {}}}\n\
         users:\n\
         - name: {name}\n  \
           user: {{client-certificate: {}, client-key: {}}}\n\
         contexts:\n\
         - name: matriarch\n  \
           context: {{cluster: matriarch, user: {name}}}\n\
         current-context: matriarch\n",
        Machine::Control.address(),
        shown(&cluster.pki("ca.crt")),
        shown(&cluster.pki(&format!("{name}.crt"))),
        shown(&cluster.pki(&format!("{name}.key"))),
    );
    cluster::write(&cluster.pki(&format!("{name}.conf")), &text)
}

fn openssl(words: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(words);
    command
}
