//! What settings there are: the leaves of the configuration's schema.

use super::Config;
use super::sources::PREFIX;

/// One leaf of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// As `database.url`.
    pub(super) path: String,
    /// Its doc comment.
    pub(super) described: String,
    pub(super) default: String,
    /// Its value is a text, whatever it looks like.
    pub(super) is_text: bool,
    /// The struct that it is a field of, as the schema names it; structs of one name that differ have different names there.
    pub(super) section: String,
    /// What that struct is.
    pub(super) section_described: String,
}

impl Setting {
    /// Its name in the environment.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.to_uppercase().replace('.', "__"))
    }

    pub(super) fn help(&self) -> String {
        format!("{} [default: {}]", self.described, self.default)
    }
}

/// Every leaf of `C`.
pub(super) fn settings<C: Config>() -> Vec<Setting> {
    let schema = schemars::schema_for!(C);
    let defaults = serde_json::to_value(C::default()).unwrap_or_default();
    let mut settings = Vec::new();
    walk(schema.as_value(), schema.as_value(), &defaults, "", &mut settings);
    settings
}

fn walk(
    root: &serde_json::Value,
    node: &serde_json::Value,
    defaults: &serde_json::Value,
    path: &str,
    settings: &mut Vec<Setting>,
) {
    let section = node["$ref"].as_str().unwrap_or_default();
    let section_described = resolve(root, node)["description"].as_str().unwrap_or_default();
    let properties = resolve(root, node)["properties"].as_object();
    for (name, property) in properties.into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = &defaults[name];
        if resolve(root, property)["properties"].is_object() {
            walk(root, property, default, &path, settings);
        } else {
            let described =
                property["description"].as_str().or_else(|| resolve(root, property)["description"].as_str());
            settings.push(Setting {
                path,
                described: described.unwrap_or_default().to_owned(),
                default: shown(default),
                is_text: resolve(root, property)["type"] == "string",
                section: section.to_owned(),
                section_described: section_described.to_owned(),
            });
        }
    }
}

fn resolve<'a>(root: &'a serde_json::Value, node: &'a serde_json::Value) -> &'a serde_json::Value {
    match node["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap_or(node),
        None => node,
    }
}

fn shown(default: &serde_json::Value) -> String {
    default.as_str().map_or_else(|| default.to_string(), str::to_owned)
}
