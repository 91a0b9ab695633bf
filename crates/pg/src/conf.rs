//! Lines of `postgresql.conf` and `postgresql.auto.conf`, and connection strings.
//!
//! Follows PostgreSQL's `src/backend/utils/misc/guc-file.l` and, for connection strings,
//! `conninfo_parse` in `src/interfaces/libpq/fe-connect.c`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A text that cannot be written into, or read from, a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Not the name of a parameter.
    #[error(
        "{name:?} is not a parameter's name: letters, digits, underscores and at most one dot are allowed, and it begins with a letter or an underscore"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// A NUL in a value.
    #[error("the value of {name} contains a NUL character, which PostgreSQL cannot hold")]
    Nul {
        /// Whose value.
        name: String,
    },
    /// A line that is none of a configuration file.
    #[error("line {line} is not of the form NAME = 'VALUE'")]
    Line {
        /// Counted from 1.
        line: usize,
    },
}

/// Is this a name that `postgresql.conf` takes (`ID` or `QUALIFIED_ID` of guc-file.l)? More than
/// one dot is refused by all majors' `valid_custom_variable_name` but never useful, so here too.
pub fn is_parameter_name(name: &str) -> bool {
    let part = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    // PostgreSQL cuts identifiers at 63 bytes (NAMEDATALEN - 1).
    match name.split_once('.') {
        Some((prefix, rest)) => name.len() <= 127 && part(prefix) && part(rest),
        None => name.len() <= 63 && part(name),
    }
}

/// `'value'`, with quotes doubled and what the scanner would take for the end of the line escaped
/// (`DeescapeQuotedString`).
fn quote(value: &str) -> String {
    let mut quoted = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// `name = 'value'` with a line break.
pub fn render_setting(name: &str, value: &str) -> Result<String, ConfError> {
    if !is_parameter_name(name) {
        return Err(ConfError::Name { name: name.to_owned() });
    }
    if value.contains('\0') {
        return Err(ConfError::Nul { name: name.to_owned() });
    }
    Ok(format!("{name} = {}\n", quote(value)))
}

/// All settings in their order, one line each.
pub fn render_settings(settings: &BTreeMap<String, String>) -> Result<String, ConfError> {
    settings.iter().map(|(name, value)| render_setting(name, value)).collect()
}

/// `include 'path'` with a line break: the file must be there.
pub fn render_include(path: &str) -> Result<String, ConfError> {
    render_directive("include", path)
}

/// `include_if_exists 'path'` with a line break.
pub fn render_include_if_exists(path: &str) -> Result<String, ConfError> {
    render_directive("include_if_exists", path)
}

fn render_directive(word: &str, path: &str) -> Result<String, ConfError> {
    if path.contains('\0') {
        return Err(ConfError::Nul { name: word.to_owned() });
    }
    Ok(format!("{word} {}\n", quote(path)))
}

/// Reads `postgresql.auto.conf` (or any file without include directives): names in lower case,
/// the last of equal names wins, as in the server.
pub fn parse_settings(content: &str) -> Result<BTreeMap<String, String>, ConfError> {
    let mut settings = BTreeMap::new();
    for (index, text) in content.lines().enumerate() {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, value) = parse_setting(text).ok_or(ConfError::Line { line: index + 1 })?;
        settings.insert(name, value);
    }
    Ok(settings)
}

fn parse_setting(text: &str) -> Option<(String, String)> {
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '=' || c == '\'')?;
    let (name, rest) = text.split_at_checked(end)?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (value, rest) = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '#');
            let (value, rest) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
            let plain = !value.is_empty() && !value.contains(['\'', '=']);
            plain.then(|| (value.to_owned(), rest))?
        }
    };
    let rest = rest.trim_start();
    let ends = rest.is_empty() || rest.starts_with('#');
    (ends && is_parameter_name(name) && !value.contains('\0'))
        .then(|| (name.to_ascii_lowercase(), value))
}

/// The value behind an opening quote, and what follows the closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => value.push('\''),
            '\'' => return Some((value, text.get(index + 1..)?)),
            '\\' => match chars.next()?.1 {
                'b' => value.push('\x08'),
                'f' => value.push('\x0C'),
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                first @ '0'..='7' => {
                    let mut code = first.to_digit(8)?;
                    for _ in 0..2 {
                        let Some((_, digit)) = chars.next_if(|(_, c)| c.is_digit(8)) else { break };
                        code = code * 8 + digit.to_digit(8)?;
                    }
                    value.push(char::from(u8::try_from(code & 0xFF).ok()?));
                }
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// A connection string of keywords and values: `host=10.0.0.1 user='a b'`. The order is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conninfo {
    pairs: Vec<(String, String)>,
}

/// A connection string that libpq would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a connection string is a list of KEYWORD=VALUE: {problem}")]
pub struct ParseConninfoError {
    /// What is wrong. The text itself is not shown: it may hold a password.
    pub problem: &'static str,
}

impl Conninfo {
    /// An empty one.
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// With `keyword` set to `value`, in the place of an earlier one if there is any.
    #[must_use]
    pub fn with(mut self, keyword: &str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        match self.pairs.iter_mut().find(|(known, _)| known == keyword) {
            Some((_, known)) => *known = value,
            None => self.pairs.push((keyword.to_owned(), value)),
        }
        self
    }

    /// The value of `keyword`.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == keyword).map(|(_, value)| value.as_str())
    }

    /// All pairs in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(keyword, value)| (keyword.as_str(), value.as_str()))
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (keyword, value)) in self.pairs.iter().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            write!(f, "{blank}{keyword}='{value}'")?;
        }
        Ok(())
    }
}

/// The value at the beginning of `text`, and what follows it.
fn conninfo_value(text: &str) -> Result<(String, &str), ParseConninfoError> {
    let error = |problem| ParseConninfoError { problem };
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        let rest = |from: usize| text.get(from..).unwrap_or_default();
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted.is_some() => return Ok((value, rest(index + 1))),
            c if quoted.is_none() && c.is_ascii_whitespace() => return Ok((value, rest(index))),
            c => value.push(c),
        }
    }
    if quoted.is_some() { Err(error("a quoted value is not ended")) } else { Ok((value, "")) }
}

impl FromStr for Conninfo {
    type Err = ParseConninfoError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| ParseConninfoError { problem };
        let mut conninfo = Self::new();
        let mut rest = text.trim_ascii_start();
        while !rest.is_empty() {
            let (keyword, after) =
                rest.split_once('=').ok_or_else(|| error("\"=\" is missing after a keyword"))?;
            let keyword = keyword.trim_ascii_end();
            if keyword.is_empty() || keyword.contains(|c: char| c.is_ascii_whitespace()) {
                return Err(error("\"=\" is missing after a keyword"));
            }
            let (value, after) = conninfo_value(after.trim_ascii_start())?;
            conninfo = conninfo.with(keyword, value);
            rest = after.trim_ascii_start();
        }
        Ok(conninfo)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_cannot_leave_its_line() {
        let line = render_setting("log_line_prefix", "it's\n\\x").unwrap();
        assert_eq!(line, "log_line_prefix = 'it''s\\n\\\\x'\n");
        assert!(render_setting("a = 1\nb", "x").is_err());
        assert!(render_setting("a", "x\0").is_err());
        assert_eq!(render_include("a b").unwrap(), "include 'a b'\n");
    }

    #[test]
    fn names_follow_the_scanner() {
        for name in ["work_mem", "_a", "pgaudit.log", "a$1"] {
            assert!(is_parameter_name(name), "{name}");
        }
        for name in ["", "1a", "a-b", "a.b.c", ".a", "a.", "a b", "é", &"a".repeat(64)] {
            assert!(!is_parameter_name(name), "{name}");
        }
    }

    #[test]
    fn what_alter_system_writes_is_read() {
        let text = "# Do not edit this file manually!\n# It will be overwritten.\nwork_mem = '8MB'\n\nWork_Mem 16MB # again\nx.y='a\\'b''c'\n";
        let read = parse_settings(text).unwrap();
        assert_eq!(read["work_mem"], "16MB");
        assert_eq!(read["x.y"], "a'b'c");
        for (text, line) in
            [("a", 1), ("\na = 'x", 2), ("a = 'x' y", 1), ("a = b c", 1), ("= 1", 1)]
        {
            assert_eq!(parse_settings(text), Err(ConfError::Line { line }), "{text}");
        }
    }

    #[test]
    fn a_connection_string_is_read_as_libpq_reads_it() {
        let read: Conninfo = " host = /run  user='a \\'b' password=x\\ y port=".parse().unwrap();
        let pairs: Vec<_> = read.iter().collect();
        assert_eq!(pairs, [("host", "/run"), ("user", "a 'b"), ("password", "x y"), ("port", "")]);
        assert!("host".parse::<Conninfo>().is_err());
        assert!("host x=1".parse::<Conninfo>().is_err());
        assert!("host='x".parse::<Conninfo>().is_err());
        assert_eq!(
            Conninfo::new().with("user", "x").with("port", 5432).with("user", "y'").to_string(),
            "user='y\\'' port='5432'"
        );
    }

    proptest! {
        #[test]
        fn settings_round_trip(
            settings in prop::collection::btree_map("[a-z_][a-z0-9_]{0,9}", "[^\\x00]{0,20}", 0..6),
        ) {
            let text = render_settings(&settings).unwrap();
            prop_assert_eq!(text.lines().count(), settings.len());
            prop_assert_eq!(parse_settings(&text), Ok(settings));
        }

        #[test]
        fn connection_strings_round_trip(
            pairs in prop::collection::btree_map("[a-z_]{1,9}", ".{0,20}", 0..6),
        ) {
            let conninfo =
                pairs.iter().fold(Conninfo::new(), |conninfo, (key, value)| conninfo.with(key, value));
            prop_assert_eq!(conninfo.to_string().parse::<Conninfo>(), Ok(conninfo));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "(?s)([a-z]{0,3}[ ='\\\\#\n0-7]{0,3}){0,12}|(?s).{0,60}") {
            let _ = parse_settings(&text);
            let _ = text.parse::<Conninfo>();
        }
    }
}
