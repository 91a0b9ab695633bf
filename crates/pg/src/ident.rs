//! `pg_ident.conf`: which outside names may be which roles.
//!
//! Follows the documentation's chapter "User Name Maps" and `parse_ident_line` in PostgreSQL's
//! `src/backend/libpq/hba.c`.

use crate::hba::{HbaProblem, LOCAL_MAP, is_include, split_fields};

/// Why a line of the user's cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentProblem {
    /// It cannot be one line of such a file.
    #[error(transparent)]
    Line(HbaProblem),
    /// Not three fields.
    #[error("it has {found} fields; a line is: MAP SYSTEM-USER DATABASE-USER")]
    Fields {
        /// How many it has.
        found: usize,
    },
    /// A list where one word is expected.
    #[error("{found:?} is a list; write one line for each")]
    List {
        /// The field.
        found: String,
    },
    /// The map by which the agent connects.
    #[error("map {LOCAL_MAP} decides who may be postgres on the pod's socket; use another name")]
    Reserved,
}

/// A line of the user's that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pg_ident line {line} ({text:?}): {problem}")]
pub struct IdentError {
    /// Counted from 1 in the user's list.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong and what to do instead.
    pub problem: IdentProblem,
}

/// Is the line there at all, and can it be taken?
fn check_line(text: &str) -> Result<bool, IdentProblem> {
    let fields = split_fields(text).map_err(IdentProblem::Line)?;
    let Some(map) = fields.first() else { return Ok(false) };
    if let [word] = map.as_slice()
        && is_include(word)
    {
        return Err(IdentProblem::Line(HbaProblem::Include));
    }
    let [map, _, _] = fields.as_slice() else {
        return Err(IdentProblem::Fields { found: fields.len() });
    };
    if let Some(list) = fields.iter().find(|field| field.len() != 1) {
        return Err(IdentProblem::List { found: list.join(",") });
    }
    if map.iter().any(|map| map == LOCAL_MAP) {
        return Err(IdentProblem::Reserved);
    }
    Ok(true)
}

/// Checks the user's lines and renders the whole file: first the line by which `system_user`, the
/// pod's own user, is `postgres` on the socket.
///
/// All wrong lines are reported at once.
pub fn render(system_user: &str, user_lines: &[String]) -> Result<String, Vec<IdentError>> {
    // Quoted, so that no name of a user is taken for a regular expression, a list or a comment.
    let system_user = system_user.replace(['"', '\n', '\r', '\0'], "");
    let mut file = format!("{LOCAL_MAP} \"{system_user}\" postgres\n");
    let mut errors = Vec::new();
    for (index, text) in user_lines.iter().enumerate() {
        match check_line(text) {
            Ok(true) => {
                file.push_str(text.trim());
                file.push('\n');
            }
            Ok(false) => {}
            Err(problem) => {
                errors.push(IdentError { line: index + 1, text: text.clone(), problem });
            }
        }
    }
    if errors.is_empty() { Ok(file) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_pod_s_user_is_postgres_and_the_user_s_lines_follow() {
        let lines = ["people /^(.*)@example\\.com$ \\1", "# nobody", "people ann app"];
        assert_eq!(
            render("postgres", &lines.map(str::to_owned)).unwrap(),
            "local \"postgres\" postgres\npeople /^(.*)@example\\.com$ \\1\npeople ann app\n"
        );
    }

    #[test]
    fn a_line_that_cannot_be_taken_is_named() {
        for (line, expected) in [
            ("a b", IdentProblem::Fields { found: 2 }),
            ("a b c d", IdentProblem::Fields { found: 4 }),
            ("a b,c d", IdentProblem::List { found: "b,c".to_owned() }),
            ("local x postgres", IdentProblem::Reserved),
            ("\"local\" x postgres", IdentProblem::Reserved),
            ("a b c\nlocal x postgres", IdentProblem::Line(HbaProblem::LineBreak)),
            ("a b c\\", IdentProblem::Line(HbaProblem::Continuation)),
            ("include x", IdentProblem::Line(HbaProblem::Include)),
        ] {
            let errors = render("u", &[line.to_owned()]).unwrap_err();
            assert_eq!(errors[0].problem, expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_check_panic(text in "(?s).{0,60}", user in "(?s).{0,9}") {
            if let Ok(file) = render(&user, &[text]) {
                prop_assert!(file.lines().count() <= 2);
            }
        }
    }
}
