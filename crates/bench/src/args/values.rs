//! Values of flags, with their bounds.

use std::ops::RangeInclusive;

use super::TOKENS_LIVE;

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.001..=TOKENS_LIVE)
}

pub(super) fn seconds_or_none(text: &str) -> Result<f64, String> {
    number(text, 0.0..=TOKENS_LIVE)
}

/// Calls a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.1..=1_000_000.0)
}

fn number(text: &str, bounds: RangeInclusive<f64>) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    let (least, most) = (bounds.start(), bounds.end());
    if bounds.contains(&value) { Ok(value) } else { Err(format!("must be {least} to {most}")) }
}

pub(super) fn count<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let value: usize = text.parse().map_err(|_| "must be a whole number".to_owned())?;
    if (LEAST..=MOST).contains(&value) { Ok(value) } else { Err(format!("must be {LEAST} to {MOST}")) }
}

/// Whose settings there are.
const SECTIONS: [&str; 5] = ["user", "order", "inventory", "process", "bus"];

pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let (section, rest) = name.split_once('.').unwrap_or((name, ""));
    if !SECTIONS.contains(&section) || rest.is_empty() {
        return Err(format!("{name} is no setting: it begins with one of {}", SECTIONS.join(". ") + "."));
    }
    // The services are found where the benchmark has put them.
    if rest == "server.listen" || name == "process.admin.listen" {
        return Err(format!("{name} is the benchmark's own"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_a_name_that_a_service_may_know() {
        let group = setting("order.group.batch_max=128").unwrap();
        assert_eq!(group, ("order.group.batch_max".to_owned(), "128".to_owned()));
        assert_eq!(setting("process.telemetry.log=info,souk=debug").unwrap().1, "info,souk=debug");
        for bad in ["order.group", "orders.group=1", "order=1", "order.server.listen=127.0.0.1:1"] {
            setting(bad).unwrap_err();
        }
    }
}
