//! The storage of the test cluster is real: volumes are full when they are full, grow while they
//! are used, and their snapshots hold what was there at that instant.

use std::time::Duration;

use anyhow::Result;

use super::namespace::{Namespace, wait};

const LIMIT: Duration = Duration::from_secs(120);

/// A claim, empty or with what `source` (a YAML mapping) holds.
fn claim(name: &str, size: &str, source: Option<&str>) -> String {
    let source = source.map(|source| format!("  dataSource: {source}\n")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  resources: {{requests: {{storage: {size}}}}}\n{source}"
    )
}

/// A pod that sleeps and has the claim of its name at /data, on that node.
fn pod(name: &str, node: &str) -> String {
    let security = "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, \
                    runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n  \
         securityContext: {{fsGroup: 1000}}\n  \
         terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: localhost/busybox:1\n    \
         imagePullPolicy: Never\n    command: [sleep, infinity]\n    \
         securityContext: {security}\n    \
         volumeMounts: [{{name: data, mountPath: /data}}]\n  \
         volumes: [{{name: data, persistentVolumeClaim: {{claimName: {name}}}}}]\n"
    )
}

/// What the file system of a pod can hold, in MiB.
fn capacity(space: &Namespace, pod: &str) -> Result<u64> {
    let said = space.run(pod, "df -m /data | tail -n 1")?;
    let words: Vec<&str> = said.split_whitespace().collect();
    Ok(words.get(1).copied().unwrap_or_default().parse()?)
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_volume_fills_grows_is_copied_and_goes() -> Result<()> {
    let space = Namespace::create("volumes")?;
    space.apply(&format!("{}---\n{}", claim("full", "400Mi", None), pod("full", "node1")))?;
    space.wait_for_pod("full")?;
    let before = capacity(&space, "full")?;
    assert!((300..=400).contains(&before), "a volume of 400 MiB holds {before}");

    let fill = "dd if=/dev/zero of=/data/fill bs=1M";
    let failed = format!("{:#}", space.run("full", fill).expect_err("nothing fills it"));
    assert!(failed.contains("No space left on device"), "{failed}");

    let wanted = r#"{"spec":{"resources":{"requests":{"storage":"800Mi"}}}}"#;
    space.ask(&["patch", "pvc", "full", "--patch", wanted])?;
    let took = wait("a larger file system", LIMIT, || Ok(capacity(&space, "full")? > 700))?;
    println!("grown from {before} to {} MiB after {took:?}", capacity(&space, "full")?);
    space.run("full", "echo more > /data/more && sync")?;
    let restarts = space.field("pod/full", ".status.containerStatuses[0].restartCount")?;
    assert_eq!(restarts, "0", "it grew, but not while it was used");

    copies(&space)?;

    space.ask(&["delete", "pod", "--all", "--timeout=120s"])?;
    space.ask(&["delete", "volumesnapshot,pvc", "--all", "--timeout=120s"])?;
    wait("the volumes to go", LIMIT, || Ok(space.volumes()?.is_empty()))?;
    Ok(())
}

/// A snapshot and a clone of the claim `full`, each used on another node.
fn copies(space: &Namespace) -> Result<()> {
    space.run("full", "rm /data/fill && echo one > /data/kept && sync")?;
    space.apply(
        "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\n\
         metadata: {name: first}\nspec: {source: {persistentVolumeClaimName: full}}\n",
    )?;
    let took = wait("the snapshot", LIMIT, || {
        Ok(space.field("volumesnapshot/first", ".status.readyToUse")? == "true")
    })?;
    println!("snapshot taken in {took:?}");
    space.run("full", "echo two > /data/kept && echo new > /data/later && sync")?;

    let snapshot = "{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: first}";
    let clone = "{kind: PersistentVolumeClaim, name: full}";
    for (name, size, source, node) in
        [("restored", "1Gi", snapshot, "node2"), ("cloned", "800Mi", clone, "node1")]
    {
        space.apply(&format!("{}---\n{}", claim(name, size, Some(source)), pod(name, node)))?;
    }
    space.wait_for_pod("restored")?;
    assert_eq!(space.run("restored", "cat /data/kept; ls /data")?, "one\nkept\nmore\n");
    let larger = capacity(space, "restored")?;
    assert!(larger > 900, "restored into 1 GiB, it holds {larger} MiB");
    space.wait_for_pod("cloned")?;
    assert_eq!(space.run("cloned", "cat /data/kept; ls /data")?, "two\nkept\nlater\nmore\n");

    space.run("restored", "echo three > /data/kept && sync")?;
    assert_eq!(space.run("full", "cat /data/kept")?, "two\n", "copies share what they write");
    Ok(())
}
