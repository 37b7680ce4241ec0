//! Subjects, as NATS has them: words with points between; in a pattern `*` is any word and a last `>` is one or more words.

/// Whether `subject` is one of `pattern`.
pub(crate) fn matches(pattern: &str, subject: &str) -> bool {
    let mut words = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, words.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(word)) if wanted == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_matched_word_by_word() {
        let subject = "souk.order.order.placed";
        for pattern in ["souk.order.order.placed", "souk.*.order.*", "souk.>", ">", "souk.order.order.*"] {
            assert!(matches(pattern, subject), "{pattern}");
        }
        for pattern in
            ["souk.order", "souk.order.order.placed.>", "souk.*", "souk.user.>", "souk.order.order.placed.x", ""]
        {
            assert!(!matches(pattern, subject), "{pattern}");
        }
    }
}
