//! Fetching from a server of every bad kind, and the exchange of files.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A program that says what Matriarch says.
const PROGRAM: &str = "#!/bin/sh\necho matriarch 9.9.9\n";

struct Place {
    root: Root,
    files: Files,
    base: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("m-binary-{name}-{}", std::process::id()));
        std::fs::create_dir_all(base.join("controller/run")).unwrap();
        let root = Root::new(&base);
        std::fs::write(root.program(), "present").unwrap();
        Self { files: Files::new(&root), root, base }
    }

    fn present(&self) -> String {
        std::fs::read_to_string(self.files.current()).unwrap()
    }

    /// Everything in the directory of the program.
    fn names(&self) -> Vec<String> {
        let found = std::fs::read_dir(self.base.join("controller")).unwrap();
        let mut names: Vec<String> =
            found.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.base);
    }
}

/// Serves `body` to whoever asks, with a length of `claimed`, and breaks off then.
async fn server(body: Vec<u8>, claimed: usize) -> AgentBinary {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let binary = AgentBinary {
        version: "9.9.9".to_owned(),
        sha256: hexadecimal(&Sha256::digest(&body)),
        bytes: u64::try_from(body.len()).unwrap(),
        architecture: std::env::consts::ARCH.to_owned(),
        url: format!("https://127.0.0.1:{port}/agent/x"),
        certificate_sha256: hexadecimal(&Sha256::digest(&certificate)),
    };
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 1024];
            let _read = stream.read(&mut head).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {claimed}\r\n\r\n");
            let _sent = stream.write_all(answer.as_bytes()).await;
            let _sent = stream.write_all(&body).await;
            let _ended = stream.shutdown().await;
        }
    });
    binary
}

async fn whole(program: &str) -> AgentBinary {
    server(program.as_bytes().to_vec(), program.len()).await
}

#[tokio::test]
async fn what_comes_whole_and_runs_takes_the_place_and_the_former_one_is_kept() {
    let place = Place::new("good");
    let binary = whole(PROGRAM).await;
    prepare(&place.root, &binary).await.unwrap();
    assert_eq!(hash_of(&place.files.next()).unwrap(), binary.sha256);
    let mode = std::fs::metadata(place.files.next()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(place.present(), "present", "nothing is exchanged yet");

    place.files.exchange().unwrap();
    assert_eq!(place.present(), PROGRAM);
    assert!(place.files.on_trial());
    place.files.settle().unwrap();
    assert_eq!(place.names(), ["matriarch", "run"]);
    assert!(!place.files.go_back().unwrap(), "there is nothing to go back to");
    assert_eq!(place.present(), PROGRAM);
}

#[tokio::test]
async fn a_program_that_failed_gives_its_place_back_and_is_remembered_by_its_hash() {
    let place = Place::new("back");
    let binary = whole(PROGRAM).await;
    prepare(&place.root, &binary).await.unwrap();
    place.files.exchange().unwrap();
    assert!(place.files.go_back().unwrap());
    assert_eq!(place.present(), "present");
    let found = look(&place.root);
    let refused = found.refused.unwrap();
    assert_eq!(refused.sha256, binary.sha256);
    assert_eq!(refused.reason, "AgentDied");
    assert_eq!(place.names(), ["matriarch", "run"], "nothing of it is left");
    assert_eq!(look(&place.root).refused, Some(refused), "the next agent knows it as well");
}

#[tokio::test]
async fn what_is_not_named_by_the_directive_leaves_nothing_and_may_come_right() {
    let place = Place::new("bad");
    let good = whole(PROGRAM).await;
    let cut = server(PROGRAM.as_bytes().to_vec(), PROGRAM.len()).await;
    let cases = [
        (AgentBinary { sha256: "00".repeat(32), ..good.clone() }, "its SHA-256 is"),
        // Longer and shorter than said.
        (AgentBinary { bytes: good.bytes - 1, ..good.clone() }, "it has more than"),
        (AgentBinary { bytes: good.bytes + 1, ..cut }, "bytes instead of"),
        // Broken off in the middle.
        (server(PROGRAM.as_bytes().to_vec(), PROGRAM.len() + 7).await, "connection"),
        (AgentBinary { bytes: 1 << 40, ..good.clone() }, "is said to have"),
        (AgentBinary { certificate_sha256: "00".repeat(32), ..good.clone() }, "certificate"),
        (AgentBinary { url: "http://127.0.0.1:1/".to_owned(), ..good.clone() }, "https"),
        (AgentBinary { url: "https://127.0.0.1:1/".to_owned(), ..good.clone() }, "cannot connect"),
        (AgentBinary { url: "https://nowhere.invalid:1/".to_owned(), ..good }, "cannot resolve"),
    ];
    for (binary, words) in cases {
        let error = prepare(&place.root, &binary).await.unwrap_err();
        let said = matriarch_api::causes::chain(&error);
        assert!(said.contains(words), "{said:?} says nothing of {words:?}");
        assert!(error.may_pass(), "{said}");
        assert_eq!(place.names(), ["matriarch", "run"], "{said}");
    }
    assert_eq!(place.present(), "present");
}

#[tokio::test]
async fn what_does_not_run_here_is_not_tried_again() {
    let place = Place::new("wrong");
    let cases = [
        ("not a program", "does not run"),
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("#!/bin/sh\necho something else\n", "which is not Matriarch's"),
    ];
    for (program, words) in cases {
        let error = prepare(&place.root, &whole(program).await).await.unwrap_err();
        let said = matriarch_api::causes::chain(&error);
        assert!(said.contains(words), "{said}");
        assert!(!error.may_pass(), "{said}");
        assert_eq!(error.reason(), "BinaryDoesNotRun");
        assert_eq!(place.names(), ["matriarch", "run"], "{said}");
    }
    let other = AgentBinary { architecture: "pdp11".to_owned(), ..whole(PROGRAM).await };
    let error = prepare(&place.root, &other).await.unwrap_err();
    assert_eq!((error.reason(), error.may_pass()), ("BinaryOfAnotherArchitecture", false));
}

#[tokio::test]
async fn a_full_volume_is_told_and_leaves_the_present_program_alone() {
    let place = Place::new("full");
    // Writes to it end as those to a full disk do.
    std::os::unix::fs::symlink("/dev/full", place.files.next()).unwrap();
    let error = prepare(&place.root, &whole(PROGRAM).await).await.unwrap_err();
    assert_eq!((error.reason(), error.may_pass()), ("BinaryNotStored", true));
    let said = matriarch_api::causes::chain(&error);
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(place.names(), ["matriarch", "run"]);
    assert_eq!(place.present(), "present");
}
