use proptest::prelude::*;

use super::*;

fn problem(line: &str) -> HbaProblem {
    let errors = render(&[line.to_owned()], None, Major::V17).unwrap_err();
    assert_eq!((errors.len(), errors[0].line), (1, 1));
    errors[0].problem.clone()
}

#[test]
fn ours_come_first_then_the_user_s_then_everybody_by_scram() {
    let lines = [
        "# applications",
        "host app app 10.0.0.0/8 scram-sha-256",
        "",
        "  hostssl all \"all\" ::1/128 cert map=people",
        "local app app scram-sha-256",
    ];
    let lines = lines.map(str::to_owned);
    assert_eq!(
        render(&lines, None, Major::V17).unwrap(),
        "local all all peer map=local\n\
         hostssl postgres streaming_replica all cert\n\
         hostssl replication streaming_replica all cert\n\
         hostssl app app 10.0.0.0/8 scram-sha-256\n\
         hostssl all \"all\" ::1/128 cert map=people\n\
         local app app scram-sha-256\n\
         hostssl all all all scram-sha-256\n"
    );
}

#[test]
fn nothing_is_let_in_without_proof_or_by_a_password_in_the_clear() {
    for method in ["trust", "\"trust\""] {
        let line = format!("hostssl all all all {method}");
        assert_eq!(problem(&line), HbaProblem::ProvesNothing { found: "trust".to_owned() });
    }
    assert!(matches!(problem("hostssl all all all ident"), HbaProblem::ProvesNothing { .. }));
    assert!(matches!(problem("local all all trust"), HbaProblem::ProvesNothing { .. }));
    assert_eq!(
        problem("host all all all password"),
        HbaProblem::WeakPassword { found: "password".to_owned() }
    );
}

#[test]
fn who_is_let_in_by_md5_comes_in_by_scram() {
    for (line, written) in [
        ("host all all all md5", "hostssl all all all scram-sha-256"),
        (
            "hostssl md5 md5,\"md5\" 10.0.0.0/8  md5 # md5",
            "hostssl md5 md5,\"md5\" 10.0.0.0/8  scram-sha-256 # md5",
        ),
        (
            "hostssl md5 all all \"md5\" clientcert=verify-ca",
            "hostssl md5 all all \"scram-sha-256\" clientcert=verify-ca",
        ),
        ("local md5 all md5", "local md5 all scram-sha-256"),
    ] {
        let file = render(&[line.to_owned()], None, Major::V17).unwrap();
        assert_eq!(file.lines().nth(3), Some(written));
    }
    assert!(matches!(problem("host all all all md5,md5"), HbaProblem::Method { .. }));
}

#[test]
fn no_line_brings_another_in() {
    let smuggled = "hostssl all all all reject\nhost all all all trust";
    assert_eq!(problem(smuggled), HbaProblem::LineBreak);
    assert_eq!(problem("hostssl all all all reject\\"), HbaProblem::Continuation);
    assert_eq!(problem("# comment\\"), HbaProblem::Continuation);
    assert_eq!(problem("include other"), HbaProblem::Include);
    assert_eq!(problem("\"include_dir\" other"), HbaProblem::Include);
}

#[test]
fn each_field_is_checked() {
    for line in ["hostnossl all all all scram-sha-256", "hostgssenc all all all gss"] {
        assert!(matches!(problem(line), HbaProblem::WithoutTls { .. }));
    }
    assert!(matches!(problem("hosts all all all cert"), HbaProblem::ConnectionType { .. }));
    assert!(matches!(problem("\"host\" all all all cert"), HbaProblem::ConnectionType { .. }));
    for (line, missing) in [
        ("hostssl", "database"),
        ("hostssl all", "user"),
        ("hostssl all all", "address"),
        ("hostssl all all 10.0.0.1", "address mask"),
        ("hostssl all all all", "method"),
        ("local all, all all # scram-sha-256", "method"),
    ] {
        assert_eq!(problem(line), HbaProblem::Missing { missing }, "{line}");
    }
    for address in
        ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0.0", "${podselector:a}", "a,b", "1.2.3"]
    {
        let line = format!("hostssl all all {address} cert");
        assert!(matches!(problem(&line), HbaProblem::Address { .. }), "{line}");
    }
    assert!(matches!(problem("hostssl all all all scram"), HbaProblem::Method { .. }));
    assert!(matches!(problem("hostssl all all all oauth"), HbaProblem::Method { .. }));
    assert!(matches!(problem("hostssl all all all peer"), HbaProblem::MethodPlace { .. }));
    assert!(matches!(problem("local all all cert"), HbaProblem::MethodPlace { .. }));
    assert!(matches!(problem("hostssl all all all cert mpa=x"), HbaProblem::Option { .. }));
    assert_eq!(problem("hostssl all \"all all cert"), HbaProblem::Quote);
}

#[test]
fn what_postgresql_takes_is_taken() {
    for line in [
        "hostssl a,b,\"c d\" +group,u 10.0.0.1 255.255.255.0 scram-sha-256",
        "hostssl a, b all .example.com reject",
        "hostssl sameuser /^a.*$ samenet ldap ldapurl=\"ldap://x/dc=a?uid?sub\"",
        "hostssl all all samehost cert clientname=DN map=m # why not",
    ] {
        assert!(render(&[line.to_owned()], None, Major::V17).is_ok(), "{line}");
    }
    assert!(render(&["hostssl all all all oauth scope=x".to_owned()], None, Major::V18).is_ok());
}

#[test]
fn every_wrong_line_is_reported_with_its_number() {
    let lines = ["local all all peer", "x", "# y", "hostssl all all all trust"];
    let errors = render(&lines.map(str::to_owned), None, Major::V15).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(
        errors[1].to_string(),
        "pg_hba line 4 (\"hostssl all all all trust\"): method trust lets in whoever asks; use scram-sha-256 or cert"
    );
}

proptest! {
    #[test]
    fn no_line_makes_the_check_panic_or_the_file_longer(
        text in "(?s)((local|host|hostssl|all|10.0.0.0/8|cert|trust|md5|map=a|[ ,\"#\\\\\n]){1,2}){0,9}|(?s).{0,60}",
    ) {
        if let Ok(file) = render(&[text], None, Major::V18) {
            prop_assert!(file.lines().count() <= 5);
            prop_assert!(file.ends_with("\nhostssl all all all scram-sha-256\n"));
            let network = file.lines().filter(|line| line.starts_with("host"));
            prop_assert!(network.into_iter().all(|line| line.starts_with("hostssl")));
            let fields = file.lines().filter_map(|line| split_fields(line).ok());
            prop_assert!(fields.into_iter().all(|it| it.get(4).is_none_or(|it| *it != ["md5"])));
        }
    }
}
