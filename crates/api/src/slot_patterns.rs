//! Names of replication slots that are left alone, by regular expressions in Go's syntax
//! (`spec.replicationSlots.synchronizeReplicas.excludePatterns`).

use regex::Regex;

/// Regular expressions, compiled.
#[derive(Clone, Debug, Default)]
pub struct SlotPatterns {
    compiled: Vec<Regex>,
}

/// A text that is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no regular expression: {reason}")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SlotPatterns {
    /// Compiles all of them.
    ///
    /// # Errors
    /// The first that cannot be compiled, or would be larger than the crate allows.
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|error| {
                // The lines before show the place in the pattern, which is of no use in one line.
                let said = error.to_string();
                let last = said.lines().last().unwrap_or_default();
                let reason = last.strip_prefix("error: ").unwrap_or(last).to_owned();
                PatternError { pattern: pattern.clone(), reason }
            })
        };
        Ok(Self { compiled: patterns.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// True if one of them is found anywhere in the name.
    pub fn matches(&self, name: &str) -> bool {
        self.compiled.iter().any(|pattern| pattern.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_says_where() {
        let patterns = SlotPatterns::new(&["^tmp_".to_owned(), "debezium".to_owned()]).unwrap();
        for (name, left_alone) in
            [("tmp_a", true), ("a_tmp_", false), ("my_debezium_2", true), ("app", false)]
        {
            assert_eq!(patterns.matches(name), left_alone, "{name}");
        }
        assert!(!SlotPatterns::default().matches("app"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let error = SlotPatterns::new(&["a".to_owned(), "(b".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "\"(b\" is no regular expression: unclosed group");
        assert!(SlotPatterns::new(&["(a{1000}){1000}".to_owned()]).is_err(), "too large");
    }
}
