//! All settings of a binary as a page for people: what `docs/settings.md` is made of.

use std::collections::BTreeMap;
use std::fmt::Write;

use figment::Figment;
use figment::providers::Serialized;

use super::Config;
use super::settings::Setting;

const HEAD: &str = "\
# Settings

Made from the configuration's structs by `./scripts/settings`; a test fails when it is stale. The suite (`souk`) has all of them; `souk-user`,
`souk-order` and `souk-inventory` have `process`, `bus` and those that begin with their own name.

A setting `a.b` can stand in the file that `--config` names, as `b` under `[a]`; in the environment, as `SOUK_A__B`; in a file of its own that
`SOUK_A__B_FILE` names, as secrets are handed to containers (one newline at its end does not count); and on the command line, as `--a.b`. The
later counts. What is no setting, and a value out of bounds, keeps the process from starting. `--print-config` prints what is in effect.
";

/// The settings that stand in structs of one kind: they are told once, wherever they stand.
#[derive(Default)]
struct Section<'a> {
    described: &'a str,
    /// Where they stand, as `user.server` and `order.server`.
    places: Vec<&'a str>,
    /// By their names, in the order of the schema.
    fields: Vec<(&'a str, Vec<&'a Setting>)>,
}

pub(super) fn page<C: Config>(settings: &[Setting]) -> String {
    let mut page = HEAD.to_owned();
    let mut written = Vec::new();
    for setting in settings {
        if written.contains(&setting.section.as_str()) {
            continue;
        }
        written.push(&setting.section);
        write_section::<C>(&mut page, &section(settings, &setting.section)).expect("writing to a string cannot fail");
    }
    page
}

fn section<'a>(settings: &'a [Setting], name: &str) -> Section<'a> {
    let mut section = Section::default();
    for setting in settings.iter().filter(|setting| setting.section == name) {
        let (place, field) = setting.path.rsplit_once('.').unwrap_or(("", &setting.path));
        section.described = &setting.section_described;
        if !section.places.contains(&place) {
            section.places.push(place);
        }
        match section.fields.iter_mut().find(|(name, _)| *name == field) {
            Some((_, settings)) => settings.push(setting),
            None => section.fields.push((field, vec![setting])),
        }
    }
    section
}

fn write_section<C: Config>(page: &mut String, section: &Section<'_>) -> std::fmt::Result {
    let places: Vec<String> = section.places.iter().map(|place| format!("`{place}`")).collect();
    writeln!(page, "\n## {}\n\n{}\n", places.join(", "), line(section.described))?;
    writeln!(page, "| setting | default | bounds | meaning |\n|---|---|---|---|")?;
    for (field, settings) in &section.fields {
        let Some(first) = settings.first() else { continue };
        let bounds = bounds::<C>(first).unwrap_or_default();
        writeln!(page, "| `{field}` | {} | {bounds} | {} |", defaults(settings), line(&first.described))?;
    }
    Ok(())
}

/// One, if it is the same wherever the setting stands.
fn defaults(settings: &[&Setting]) -> String {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for setting in settings {
        let place = setting.path.rsplit_once('.').map_or("", |(place, _)| place);
        places.entry(&setting.default).or_default().push(place);
    }
    let shown = |default: &str| if default.is_empty() { "none".to_owned() } else { format!("`{}`", line(default)) };
    if places.len() == 1 {
        return places.keys().map(|default| shown(default)).collect();
    }
    let each = places.iter().map(|(default, places)| format!("{}: {}", places.join(", "), shown(default)));
    each.collect::<Vec<_>>().join("<br>")
}

/// What validation says of a number that is far too small, or far too large.
fn bounds<C: Config>(setting: &Setting) -> Option<String> {
    setting.default.parse::<u64>().ok()?;
    let start = format!("{} must be ", setting.path);
    [0, u64::MAX >> 1, u32::MAX.into(), u16::MAX.into()].into_iter().find_map(|value: u64| {
        let figment =
            Figment::from(Serialized::defaults(C::default())).merge(Serialized::default(&setting.path, value));
        let mut problems = Vec::new();
        figment.extract::<C>().ok()?.validate(&mut problems);
        problems.iter().find_map(|problem| Some(line(problem.strip_prefix(&start)?)))
    })
}

/// On one line, and no cell ends early.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
