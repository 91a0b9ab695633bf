//! The parameter `synchronous_standby_names`.
//!
//! Follows PostgreSQL's `src/backend/replication/syncrep_gram.y` and `syncrep_scanner.l`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How acknowledgements count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// The first so many in the order of the list that are connected.
    First,
    /// Any so many of the list.
    Any,
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StandbyName {
    /// `*`: every standby. A quoted one means the same (`SyncRepGetStandbyPriority`).
    Every,
    /// An `application_name`, compared without regard to case.
    Named(String),
}

/// A value that is not empty: `ANY 1 ("a","b")`. Without one, commits wait for no standby.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StandbyNames {
    /// How acknowledgements count.
    pub method: Method,
    /// How many standbys must have acknowledged; positive.
    pub number: u32,
    /// The list, in its order; not empty.
    pub names: Vec<StandbyName>,
}

/// A value that PostgreSQL would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a value for synchronous_standby_names: {problem}")]
pub struct ParseNamesError {
    /// What was given.
    pub text: String,
    /// What is wrong.
    pub problem: &'static str,
}

/// A piece of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Quoted(String),
    Number(u32),
    Open,
    Close,
    Comma,
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

/// The scanner's blanks: `[ \t\n\r\f\v]`.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0C' | '\x0B')
}

fn scan(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            c if is_blank(c) => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '*' => Token::Quoted("*".to_owned()),
            '"' => {
                let mut name = String::new();
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => name.push('"'),
                        Some('"') => break,
                        Some(c) => name.push(c),
                        None => return Err("a quoted name is not ended"),
                    }
                }
                Token::Quoted(name)
            }
            c if c.is_ascii_digit() => {
                let mut digits = c.to_string();
                while let Some(c) = chars.next_if(char::is_ascii_digit) {
                    digits.push(c);
                }
                Token::Number(digits.parse().map_err(|_| "the number is too large")?)
            }
            c if is_name_start(c) => {
                let mut name = c.to_string();
                while let Some(c) = chars.next_if(|c| is_name_part(*c)) {
                    name.push(c);
                }
                Token::Name(name)
            }
            _ => return Err("a name with this character must stand in double quotes"),
        });
    }
    Ok(tokens)
}

fn parse_list(tokens: &[Token]) -> Result<Vec<StandbyName>, &'static str> {
    let mut names = Vec::new();
    for item in tokens.split(|token| *token == Token::Comma) {
        let name = match item {
            [Token::Name(name) | Token::Quoted(name)] => name.clone(),
            // The grammar lets numbers be names.
            [Token::Number(number)] => number.to_string(),
            _ => return Err("a list of names with commas between them is expected"),
        };
        names.push(if name == "*" { StandbyName::Every } else { StandbyName::Named(name) });
    }
    Ok(names)
}

impl StandbyNames {
    /// Reads the parameter's value; none if it is empty.
    pub fn parse(text: &str) -> Result<Option<Self>, ParseNamesError> {
        Self::parse_value(text)
            .map_err(|problem| ParseNamesError { text: text.to_owned(), problem })
    }

    fn parse_value(text: &str) -> Result<Option<Self>, &'static str> {
        let tokens = scan(text)?;
        let is = |token: &Token, word: &str| match token {
            Token::Name(name) => name.eq_ignore_ascii_case(word),
            Token::Quoted(_) | Token::Number(_) | Token::Open | Token::Close | Token::Comma => {
                false
            }
        };
        let (method, number, list) = match tokens.as_slice() {
            [] => return Ok(None),
            [word, Token::Number(number), Token::Open, list @ .., Token::Close]
                if is(word, "any") =>
            {
                (Method::Any, *number, list)
            }
            [word, Token::Number(number), Token::Open, list @ .., Token::Close]
                if is(word, "first") =>
            {
                (Method::First, *number, list)
            }
            [Token::Number(number), Token::Open, list @ .., Token::Close] => {
                (Method::First, *number, list)
            }
            list => (Method::First, 1, list),
        };
        if number == 0 {
            return Err("the number of standbys must be positive");
        }
        // Keywords are no names unless quoted.
        if list.iter().any(|token| is(token, "any") || is(token, "first")) {
            return Err("ANY and FIRST are followed by a number and a list in parentheses");
        }
        let names = parse_list(list)?;
        Ok(Some(Self { method, number, names }))
    }

    /// `ANY number (names)`, names quoted; none if number or names are empty, which waits for
    /// nobody.
    pub fn any(number: u32, names: impl IntoIterator<Item = String>) -> Option<Self> {
        let names: Vec<_> = names.into_iter().map(StandbyName::Named).collect();
        let waits = number > 0 && !names.is_empty();
        waits.then_some(Self { method: Method::Any, number, names })
    }
}

impl fmt::Display for StandbyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::Named(name) => write!(f, "\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

impl fmt::Display for StandbyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.method {
            Method::First => "FIRST",
            Method::Any => "ANY",
        };
        write!(f, "{word} {} (", self.number)?;
        for (index, name) in self.names.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}")?;
        }
        f.write_str(")")
    }
}

impl FromStr for StandbyNames {
    type Err = ParseNamesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)?
            .ok_or_else(|| ParseNamesError { text: text.to_owned(), problem: "it is empty" })
    }
}

impl TryFrom<String> for StandbyNames {
    type Error = ParseNamesError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StandbyNames> for String {
    fn from(names: StandbyNames) -> Self {
        names.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(names: &[&str]) -> Vec<StandbyName> {
        names.iter().map(|name| StandbyName::Named((*name).to_owned())).collect()
    }

    #[test]
    fn every_form_of_the_grammar_is_read() {
        for (text, method, number, names) in [
            ("ANY 2 (a, \"b-1\", c)", Method::Any, 2, named(&["a", "b-1", "c"])),
            ("first 1(\"x\"\"y\")", Method::First, 1, named(&["x\"y"])),
            ("2 (a,b)", Method::First, 2, named(&["a", "b"])),
            ("a , b", Method::First, 1, named(&["a", "b"])),
            ("a, 7", Method::First, 1, named(&["a", "7"])),
            ("\"any\"", Method::First, 1, named(&["any"])),
            ("*", Method::First, 1, vec![StandbyName::Every]),
            ("ANY 1 (\"*\")", Method::Any, 1, vec![StandbyName::Every]),
        ] {
            let expected = StandbyNames { method, number, names };
            assert_eq!(StandbyNames::parse(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(StandbyNames::parse(" \t"), Ok(None));
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for text in [
            "ANY 0 (a)",
            "ANY (a)",
            "ANY 1 ()",
            "ANY 1 (a",
            "a b",
            "a-b",
            "\"a",
            "any",
            "a,,b",
            "ANY 99999999999 (a)",
            "a;",
        ] {
            assert!(StandbyNames::parse(text).is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(
            any: bool,
            number in 1u32..9,
            names in prop::collection::vec("[^\\x00]{0,12}", 1..5),
        ) {
            let method = if any { Method::Any } else { Method::First };
            let names = names
                .into_iter()
                .map(|name| if name == "*" { StandbyName::Every } else { StandbyName::Named(name) })
                .collect();
            let value = StandbyNames { method, number, names };
            prop_assert_eq!(StandbyNames::parse(&value.to_string()), Ok(Some(value)));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(any|first|[0-9]+| |[(),*\"a]){0,12}|.{0,40}") {
            let _ = StandbyNames::parse(&text);
        }
    }
}
