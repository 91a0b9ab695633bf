//! Quoting for SQL, and the look of stored passwords.

/// `"name"`: an identifier that PostgreSQL takes as it stands (documentation, "Lexical
/// Structure", quoted identifiers). Always quoted: what is a keyword differs between majors.
///
/// PostgreSQL takes no NUL in any text; the wire protocol refuses a statement with one.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`, or `E'te\\xt'` where a backslash would mean something else under
/// `standard_conforming_strings = off` (`quote_literal` in `src/backend/utils/adt/quote.c`).
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Is this a SCRAM-SHA-256 verifier, `SCRAM-SHA-256$4096:SALT$STORED:SERVER`, which PostgreSQL
/// stores as it is (`parse_scram_secret` in `src/backend/libpq/auth-scram.c`)? Any other text
/// would be taken for a password and hashed.
pub fn is_scram_verifier(text: &str) -> bool {
    let Some((iterations, rest)) =
        text.strip_prefix("SCRAM-SHA-256$").and_then(|rest| rest.split_once(':'))
    else {
        return false;
    };
    let Some((salt, (stored, server))) =
        rest.split_once('$').and_then(|(salt, keys)| Some((salt, keys.split_once(':')?)))
    else {
        return false;
    };
    let digits = iterations.bytes().all(|b| b.is_ascii_digit());
    digits
        && iterations.parse::<i32>().is_ok_and(|count| count > 0)
        && base64_length(salt).is_some_and(|bytes| bytes > 0)
        && base64_length(stored) == Some(32)
        && base64_length(server) == Some(32)
}

/// Is this an MD5 hash as PostgreSQL stores it (`get_password_type` in `src/backend/libpq/crypt.c`)?
/// Such passwords cannot be used here: nothing is authenticated by md5.
pub fn is_md5_hash(text: &str) -> bool {
    text.strip_prefix("md5")
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// How many bytes a text decodes to; none if it is not base64 with padding.
fn base64_length(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let fits = text.len().is_multiple_of(4) && padding <= 2 && digits.bytes().all(alphabet);
    fits.then(|| text.len() / 4 * 3 - padding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_are_doubled_and_backslashes_escaped() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn a_verifier_is_told_from_a_password() {
        let key = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=";
        let verifier = format!("SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2E=${key}:{key}");
        assert!(is_scram_verifier(&verifier));
        for text in [
            "secret".to_owned(),
            verifier.replace("4096", "0"),
            verifier.replace("4096", "+4096"),
            verifier.replace("4096", ""),
            verifier.replace("SHA-256", "SHA-1"),
            verifier.replace(key, "YWJj"),
            verifier.replace("c2FsdHNhbHRzYWx0c2E=", "?"),
            verifier.replace("c2FsdHNhbHRzYWx0c2E=", ""),
        ] {
            assert!(!is_scram_verifier(&text), "{text}");
        }
        assert!(is_md5_hash("md5d41d8cd98f00b204e9800998ecf8427e"));
        assert!(!is_md5_hash("md5d41d8"));
    }

    proptest! {
        #[test]
        fn no_quote_ends_a_literal_or_an_identifier_early(text in ".{0,40}") {
            let inner = quote_literal(&text);
            let inner = inner.trim_start_matches('E');
            let inner = inner[1..inner.len() - 1].replace("\\\\", "").replace("''", "");
            prop_assert!(!inner.contains('\'') && (!inner.contains('\\')));
            let name = quote_identifier(&text);
            prop_assert!(!name[1..name.len() - 1].replace("\"\"", "").contains('"'));
        }

        #[test]
        fn no_text_makes_the_checks_panic(text in "(SCRAM-SHA-256\\$)?[0-9:$=A-Z]{0,40}|.{0,40}") {
            let _ = is_scram_verifier(&text);
            let _ = is_md5_hash(&text);
        }
    }
}
