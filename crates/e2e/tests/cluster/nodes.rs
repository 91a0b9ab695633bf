//! The nodes of the test cluster behave as machines: names and Services are found from everywhere,
//! and a node that lost its network runs on.

use std::time::Duration;

use anyhow::Result;

use super::namespace::{Namespace, kube, kubectl, wait};

const LIMIT: Duration = Duration::from_secs(120);

/// A pod on a node that serves its own name on port 8080 and counts the seconds that it runs.
fn pod(node: &str) -> String {
    let security = "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, \
                    runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}";
    let script = "cd /tmp && echo $NAME > name && httpd -p 8080 -h /tmp && \
                  while sleep 1; do cut -d. -f1 /proc/uptime >> seconds; done";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {node}, labels: {{node: {node}}}}}\nspec:\n  \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n  \
         terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: localhost/busybox:1\n    \
         imagePullPolicy: Never\n    command: [sh, -c, {script:?}]\n    \
         env: [{{name: NAME, value: {node}}}]\n    \
         readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}\n    \
         securityContext: {security}\n"
    )
}

/// A Service of the pod on a node.
fn service(node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web-{node}}}\nspec:\n  \
         selector: {{node: {node}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn alone_services_are_reached_from_every_node_and_a_cut_node_runs_on() -> Result<()> {
    let nodes = ["node1", "node2", "node3"];
    let space = Namespace::create("nodes")?;
    for node in nodes {
        space.apply(&format!("{}---\n{}", pod(node), service(node)))?;
    }
    for node in nodes {
        space.wait_for_pod(node)?;
    }
    // From each pod to each, itself among them: by name, so that DNS is asked as well.
    for from in nodes {
        for to in nodes {
            wait(&format!("{to} from {from}"), LIMIT, || Ok(reaches(&space, from, to)))?;
        }
    }

    kube(&["cut", "3"])?;
    let lost = wait("the node to be missed", LIMIT, || Ok(!is_ready("node3")?))?;
    assert!(!reaches(&space, "node1", "node3"), "a node without network answers");
    kube(&["heal", "3"])?;
    let back = wait("the node to be back", LIMIT, || is_ready("node3"))?;
    println!("missed after {lost:?}, back after {back:?}");
    wait("its pod to answer", LIMIT, || Ok(reaches(&space, "node1", "node3")))?;

    let counted = space.run("node3", "cat /tmp/seconds")?;
    let seconds: Vec<u64> = counted.lines().filter_map(|line| line.parse().ok()).collect();
    let pause = seconds.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX);
    assert!(pause <= 5, "the pod stood still for {pause} s while its node was cut off");
    let first = (seconds.first(), seconds.last());
    let (Some(first), Some(last)) = first else { anyhow::bail!("the pod counted nothing") };
    assert!(last - first >= lost.as_secs(), "the pod did not run all the time: {counted}");
    Ok(())
}

/// True if a pod finds another's Service by name, and is answered.
fn reaches(space: &Namespace, from: &str, to: &str) -> bool {
    // Names and connections by two programs: busybox's own clients cannot ask for names, because
    // the C library that it is linked with statically cannot.
    let name = space.name_of_service(&format!("web-{to}"));
    let fetch = format!(
        "address=$(nslookup -type=a {name} | awk '/^Address/ {{a = $2}} END {{print a}}')\n\
         printf 'GET /name HTTP/1.0\\r\\n\\r\\n' | nc -w 3 $address 80 | tail -n 1"
    );
    space.run(from, &fetch).is_ok_and(|said| said.trim() == to)
}

fn is_ready(node: &str) -> Result<bool> {
    let path = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    Ok(kubectl(&["get", "node", node, path])? == "True")
}
