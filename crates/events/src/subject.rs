//! Subjects, and patterns of them, as NATS has them: tokens between dots; `*` stands for one token, `>` at the end for one or more.

use std::fmt;

/// A pattern of subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// No pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no pattern of subjects: {0:?}")]
pub struct PatternError(String);

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let tokens: Vec<&str> = text.split('.').collect();
        let well_formed = tokens.iter().enumerate().all(|(index, token)| match *token {
            "*" => true,
            ">" => index + 1 == tokens.len(),
            _ => !token.is_empty() && !token.contains(|c: char| matches!(c, '*' | '>') || c.is_whitespace()),
        });
        if well_formed { Ok(Self(text.to_owned())) } else { Err(PatternError(text.to_owned())) }
    }

    /// Reads several.
    pub fn parse_all(texts: &[&str]) -> Result<Vec<Self>, PatternError> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// The narrowest pattern of the form `a.b.>` that stands for whatever one of several does; a single one is itself.
    pub(crate) fn common(patterns: &[Self]) -> Self {
        let [first, others @ ..] = patterns else { return Self(">".to_owned()) };
        if others.iter().all(|other| other == first) {
            return first.clone();
        }
        let mut shared: Vec<&str> = first.0.split('.').take_while(|token| !matches!(*token, "*" | ">")).collect();
        for other in others {
            let same = shared.iter().zip(other.0.split('.')).take_while(|(one, other)| *one == other).count();
            shared.truncate(same);
        }
        // What stands for the rest stands for at least one token: the last one of a subject that all of it is shared with.
        let longest_end = patterns.iter().any(|pattern| pattern.0.split('.').count() == shared.len());
        if longest_end {
            shared.pop();
        }
        shared.push(">");
        Self(shared.join("."))
    }

    /// Whether it stands for the subject.
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for expected in self.0.split('.') {
            match (expected, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (expected, Some(token)) if expected == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_token_and_an_arrow_is_the_rest() {
        let table = [
            ("souk.order.placed", "souk.order.placed", true),
            ("souk.order.placed", "souk.order.placed.late", false),
            ("souk.order.placed", "souk.order", false),
            ("souk.*.placed", "souk.order.placed", true),
            ("souk.*.placed", "souk.order.order.placed", false),
            ("souk.*", "souk", false),
            ("souk.>", "souk.order.placed", true),
            ("souk.>", "souk.order", true),
            ("souk.>", "souk", false),
            (">", "anything.at.all", true),
            ("*", "anything", true),
            ("*", "anything.more", false),
            ("souk.*.>", "souk.order.placed", true),
            ("souk.*.>", "souk.order", false),
            ("souk.orders", "souk.order", false),
        ];
        for (pattern, subject, expected) in table {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn what_several_patterns_have_in_common_lets_all_of_them_pass() {
        let table: [(&[&str], &str); 7] = [
            (&["souk.a.b"], "souk.a.b"),
            (&["souk.a.b", "souk.a.c"], "souk.a.>"),
            (&["souk.a.b", "souk.c"], "souk.>"),
            (&["souk.a", "souk.a.b"], "souk.>"),
            (&["souk.*.b", "souk.a.b"], "souk.>"),
            (&["a.b", "c.d"], ">"),
            (&[], ">"),
        ];
        for (texts, expected) in table {
            let common = Pattern::common(&Pattern::parse_all(texts).unwrap());
            assert_eq!(common.to_string(), expected, "{texts:?}");
            assert!(texts.iter().all(|text| common.matches(&text.replace('*', "x"))), "{texts:?}");
        }
    }

    #[test]
    fn what_nats_refuses_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a*", "a.b>", "a b"] {
            assert_eq!(Pattern::parse(text), Err(PatternError(text.to_owned())));
        }
    }
}
