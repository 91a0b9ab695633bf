//! The built program, as a user calls it: what it says to wrong calls.

use std::process::{Command, Output};

fn matriarch(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_matriarch")).args(arguments).env_remove("RUST_LOG").output()
}

#[test]
fn an_unknown_verb_is_refused_with_the_way_to_help() -> std::io::Result<()> {
    let output = matriarch(&["frobnicate"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("unrecognized subcommand 'frobnicate'"), "{said}");
    assert!(said.contains("--help"), "{said}");
    Ok(())
}

#[test]
fn a_missing_manifest_is_named_before_anything_is_made() -> std::io::Result<()> {
    let state = std::env::temp_dir().join(format!("m-arguments-{}", std::process::id()));
    let directory = state.to_string_lossy().into_owned();
    let output = matriarch(&["local", "up", "/no/such.yaml", "--state", &directory])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("cannot read /no/such.yaml"), "{said}");
    assert!(!state.exists(), "{} was made", state.display());
    Ok(())
}

#[test]
fn the_verbs_for_people_are_listed_and_those_of_pods_are_not() -> std::io::Result<()> {
    let output = matriarch(&["--help"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    assert!(said.contains("local") && said.contains("operator"), "{said}");
    assert!(!said.contains("keeper"), "{said}");
    Ok(())
}
