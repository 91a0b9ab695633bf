//! `store` against the real thing: one script of requests is answered by kube-apiserver and by
//! `local`'s API server, and the answers are compared. Where they differ, `store` is wrong.

mod compare;
mod script;

use std::{path::PathBuf, time::Duration};

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use matriarch_e2e::{apiserver, turn};
use matriarch_local::apiserver::{ApiServer, Options};
use serde_json::Value;

use compare::{Answer, Variables, differences};
use script::{Step, Verb};

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn send(client: &Client, step: &Step, variables: &Variables) -> Answer {
    let mut request = http_request(step, variables);
    for attempt in 0.. {
        let copy = request.clone();
        let answer = match client.send(copy.map(Body::from)).await {
            Ok(response) => {
                let code = response.status().as_u16();
                let bytes = response.into_body().collect();
                let bytes = tokio::time::timeout(Duration::from_secs(20), bytes).await;
                let bytes = bytes.expect("the answer ends").expect("the answer can be read");
                Answer { code, text: String::from_utf8_lossy(&bytes.to_bytes()).into_owned() }
            }
            Err(error) => panic!("{}: {error}", step.name),
        };
        // A definition is served a moment after it is accepted.
        let wait = step.verb == Verb::Wait && answer.code != 200 && attempt < 100;
        if !wait {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        request = http_request(step, variables);
    }
    unreachable!("the loop returns")
}

fn http_request(step: &Step, variables: &Variables) -> http::Request<Vec<u8>> {
    let body = match &step.body {
        Value::Null => Vec::new(),
        body => variables.fill(&body.to_string()).into_bytes(),
    };
    http::Request::builder()
        .method(step.verb.method())
        .uri(variables.fill(&step.path))
        .header("content-type", step.verb.content_type())
        .header("accept", step.verb.accept())
        .header("user-agent", "conformance/1")
        .body(body)
        .expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_and_kube_apiserver_answer_alike() {
    let _turn = turn::wait().expect("a lock file");
    let Some(real) = apiserver::shared().expect("a real API server") else { return };
    let real = real.client().await.expect("a client");
    let directory = Directory(
        std::env::temp_dir().join(format!("matriarch-conformance-{}", std::process::id())),
    );
    let local = ApiServer::open(Options::new(&directory.0)).expect("a local server").client();
    let (mut theirs, mut ours) = (Variables::default(), Variables::default());
    let mut failures = Vec::new();
    let steps = script::steps();
    assert!(steps.len() >= 80, "the script has {} steps", steps.len());
    for step in &steps {
        let expected = send(&real, step, &theirs).await;
        let actual = send(&local, step, &ours).await;
        theirs.capture(step, &expected);
        ours.capture(step, &actual);
        let found = differences(step, &expected, &actual);
        if !found.is_empty() {
            failures.push(format!("## {}\n{}", step.name, found.join("\n")));
        }
    }
    println!("{} steps, {} differ", steps.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
