//! Subjects, and patterns of them, as NATS has them: tokens between dots; `*` stands for one token, `>` at the end for one or more.

/// A pattern of subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

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
    fn what_nats_refuses_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a*", "a.b>", "a b"] {
            assert_eq!(Pattern::parse(text), Err(PatternError(text.to_owned())));
        }
    }
}
