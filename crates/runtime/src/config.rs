//! Configuration: defaults < file < environment < flags.
//!
//! The configuration of a binary is one struct. Its fields are the settings, their doc comments the help. A setting `database.url` is
//! `url` under `[database]` in the file, `SOUK_DATABASE__URL` in the environment, `--database.url` on the command line. A key that the struct
//! does not have is an error, wherever it stands.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Variables that begin as settings do and are none.
const NO_SETTINGS: [&str; 2] = ["SOUK_FAILPOINT", "SOUK_TEST_POSTGRES"];
const PREFIX: &str = "SOUK_";

/// The settings of a binary.
pub trait Config: Serialize + DeserializeOwned + Default + JsonSchema {
    /// Notes what cannot be: `problems.push("user.issuer must be set".into())`, or [`check_bounds`] for a number.
    fn validate(&self, problems: &mut Vec<String>);
}

/// A year. No time that is set is longer, so that none that is reckoned with it lies past the end of time.
pub const MS_MAX: u64 = 365 * 24 * 3_600_000;
/// Of what is read, written or done in one go, or at a time.
pub const BATCH: RangeInclusive<u64> = 1..=10_000;
/// The bytes of a message, a page and the like: less may hold no entry, more is memory that one peer takes.
pub const BYTES: RangeInclusive<u64> = 1_024..=16 * 1_024 * 1_024;

/// Notes each of the `settings`, which stand at `at`, whose value is not one of those `allowed`.
pub fn check_bounds(problems: &mut Vec<String>, at: &str, allowed: RangeInclusive<u64>, settings: &[(&str, u64)]) {
    for (name, value) in settings {
        if !allowed.contains(value) {
            problems.push(format!("{at}.{name} must be {} to {}", allowed.start(), allowed.end()));
        }
    }
}

/// What the command line says of the binary itself.
#[derive(Clone, Debug)]
pub struct App {
    /// The binary's name.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Flags beside the settings.
    pub flags: Vec<Arg>,
}

/// What the command line came to.
#[derive(Debug)]
pub enum Loaded<C> {
    /// Run with this configuration; the matches have the flags beside the settings.
    Run(C, ArgMatches),
    /// Print this and end: the help, the version, the configuration.
    Print(String),
}

/// Why there is no configuration; the message names the setting and where it came from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line.
    #[error("{0}")]
    Flags(#[from] clap::Error),
    /// A value, or a key that is no setting.
    #[error("{0}")]
    Setting(#[from] Box<figment::Error>),
    /// Values that cannot be, all of them.
    #[error("the configuration cannot be used:\n  {}", .0.join("\n  "))]
    Invalid(Vec<String>),
    /// The configuration cannot be printed.
    #[error("the configuration cannot be printed")]
    Print(#[from] toml::ser::Error),
}

/// Loads the settings for the command line `args`, whose first word is the program.
pub fn load<C: Config>(app: &App, args: impl IntoIterator<Item = OsString>) -> Result<Loaded<C>, Error> {
    let settings = settings::<C>();
    let matches = match command(app, &settings).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(shown) if !shown.use_stderr() => return Ok(Loaded::Print(rendered(&shown.render()))),
        Err(error) => return Err(error.into()),
    };
    let config: C = layers::<C>(&settings, &matches).extract().map_err(Box::new)?;
    let mut problems = Vec::new();
    config.validate(&mut problems);
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    if matches.get_flag("print-config") {
        return Ok(Loaded::Print(toml::to_string_pretty(&config)?));
    }
    Ok(Loaded::Run(config, matches))
}

/// In colours where somebody sees them.
fn rendered(text: &clap::builder::StyledStr) -> String {
    if std::io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() }
}

fn layers<C: Config>(settings: &[Setting], matches: &ArgMatches) -> Figment {
    let mut figment = Figment::from(Serialized::defaults(C::default()));
    if let Some(file) = matches.get_one::<PathBuf>("config") {
        figment = figment.merge(Toml::file_exact(file));
    }
    // What is no leaf: an entry of a map, or no setting at all, which is an error.
    let mut known: Vec<String> = settings.iter().map(Setting::variable).collect();
    known.extend(NO_SETTINGS.map(str::to_owned));
    let others = Env::prefixed(PREFIX)
        .filter(move |key| !known.iter().any(|known| known[PREFIX.len()..].eq_ignore_ascii_case(key.as_str())));
    figment = figment.merge(others.split("__"));
    for setting in settings {
        if let Ok(text) = std::env::var(setting.variable()) {
            figment = figment.merge(setting.given(&text, "environment variable"));
        }
    }
    for setting in settings {
        if let Some(text) = matches.get_one::<String>(&setting.path) {
            figment = figment.merge(setting.given(text, "command line"));
        }
    }
    figment
}

/// The value of a setting, as one source has it.
struct Given {
    source: &'static str,
    value: Dict,
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.value.clone()))
    }
}

/// `a.b`, 1 -> `{a: {b: 1}}`
fn nested(path: &str, value: Value) -> Dict {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let inner = if rest.is_empty() { value } else { nested(rest, value).into() };
    [(first.to_owned(), inner)].into()
}

fn command(app: &App, settings: &[Setting]) -> Command {
    let settings = settings.iter().map(|setting| {
        let id = setting.path.clone();
        Arg::new(id.clone()).long(id).help(setting.help.clone()).value_name("VALUE").help_heading("Settings")
    });
    Command::new(app.name)
        .about(app.about)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help("A setting a.b can also stand in the file, as b under [a], or in the environment, as SOUK_A__B.")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("A TOML file with settings")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .help("Print the settings as they are in effect, and end")
                .action(ArgAction::SetTrue),
        )
        .args(&app.flags)
        .args(settings)
}

/// One leaf of the configuration.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    path: String,
    help: String,
    /// Its value is a text, whatever it looks like.
    is_text: bool,
}

impl Setting {
    /// Its name in the environment.
    fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.to_uppercase().replace('.', "__"))
    }

    fn given(&self, text: &str, source: &'static str) -> Given {
        let value = if self.is_text {
            Value::from(text)
        } else {
            text.parse().unwrap_or_else(|never: Infallible| match never {})
        };
        Given { source, value: nested(&self.path, value) }
    }
}

/// Every leaf of `C`, with its doc comment and default.
fn settings<C: Config>() -> Vec<Setting> {
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
                help: format!("{} [default: {}]", described.unwrap_or_default(), shown(default)),
                is_text: resolve(root, property)["type"] == "string",
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

#[cfg(test)]
#[expect(clippy::result_large_err, reason = "figment's Jail takes closures with its own error")]
mod tests {
    use figment::Jail;
    use serde::Deserialize;

    use super::*;
    use crate::Secret;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Shop {
        /// Its name.
        name: String,
        /// Its door.
        door: Door,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Door {
        /// Its width in centimetres.
        width: u32,
        /// Who may open it.
        keys: Vec<String>,
        /// What opens it.
        word: Secret,
    }

    impl Default for Door {
        fn default() -> Self {
            Self { width: 90, keys: Vec::new(), word: Secret::default() }
        }
    }

    impl Config for Shop {
        fn validate(&self, problems: &mut Vec<String>) {
            check_bounds(problems, "door", 1..=500, &[("width", self.door.width.into())]);
        }
    }

    fn run(args: &[&str]) -> Result<Loaded<Shop>, Error> {
        let app = App { name: "shop", about: "A shop.", flags: Vec::new() };
        load(&app, std::iter::once("shop").chain(args.iter().copied()).map(OsString::from))
    }

    fn loaded(args: &[&str]) -> Shop {
        match run(args).unwrap() {
            Loaded::Run(shop, _) => shop,
            Loaded::Print(text) => panic!("printed {text}"),
        }
    }

    fn printed(args: &[&str]) -> String {
        match run(args).unwrap() {
            Loaded::Print(text) => text,
            Loaded::Run(..) => panic!("nothing printed"),
        }
    }

    #[test]
    fn defaults_yield_to_the_file_to_the_environment_to_flags() {
        Jail::expect_with(|jail| {
            assert_eq!(loaded(&[]).door.width, 90);
            jail.create_file("shop.toml", "name = \"file\"\n[door]\nwidth = 1\n")?;
            assert_eq!(loaded(&["--config", "shop.toml"]).door.width, 1);
            jail.set_env("SOUK_DOOR__WIDTH", "2");
            assert_eq!(loaded(&["--config", "shop.toml"]).door.width, 2);
            let shop = loaded(&["--config", "shop.toml", "--door.width", "3", "--door.keys", "[a, b]"]);
            assert_eq!((shop.name.as_str(), shop.door.width), ("file", 3));
            assert_eq!(shop.door.keys, ["a", "b"]);
            Ok(())
        });
    }

    #[test]
    fn a_key_that_is_no_setting_is_an_error_wherever_it_stands() {
        Jail::expect_with(|jail| {
            jail.create_file("shop.toml", "[door]\nwidht = 1\n")?;
            let error = run(&["--config", "shop.toml"]).unwrap_err().to_string();
            assert!(error.contains("widht") && error.contains("shop.toml"), "{error}");
            assert!(run(&["--door.widht", "1"]).unwrap_err().to_string().contains("widht"));
            assert!(run(&["--door.width", "x"]).unwrap_err().to_string().contains("command line"));
            jail.set_env("SOUK_DOOR__WIDHT", "1");
            let error = run(&[]).unwrap_err().to_string();
            assert!(error.contains("widht") && error.contains("environment"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_value_that_cannot_be_is_refused() {
        Jail::expect_with(|jail| {
            assert!(run(&["--door.width", "wide"]).unwrap_err().to_string().contains("width"));
            assert!(run(&["--door.width", "0"]).unwrap_err().to_string().contains("door.width must be 1 to 500"));
            assert!(run(&["--config", "missing.toml"]).is_err());
            jail.set_env("SOUK_FAILPOINT", "not a setting");
            loaded(&[]);
            Ok(())
        });
    }

    #[test]
    fn both_bounds_can_be_set_and_whatever_is_outside_is_named() {
        let mut problems = Vec::new();
        check_bounds(&mut problems, "door", 1..=5, &[("width", 1), ("height", 5)]);
        assert!(problems.is_empty(), "{problems:?}");
        check_bounds(&mut problems, "door", 1..=5, &[("width", 0), ("height", 3), ("depth", 6)]);
        assert_eq!(problems, ["door.width must be 1 to 5", "door.depth must be 1 to 5"]);
    }

    #[test]
    fn a_text_is_a_text_whatever_it_looks_like_and_no_error_shows_a_secret() {
        Jail::expect_with(|jail| {
            jail.create_file("shop.toml", "[door]\nword = 987654\n")?;
            let error = run(&["--config", "shop.toml"]).unwrap_err().to_string();
            assert!(error.contains("in quotes") && !error.contains("987654"), "{error}");
            jail.set_env("SOUK_DOOR__WORD", "123456");
            let shop = loaded(&["--name", "007"]);
            assert_eq!((shop.name.as_str(), shop.door.word.expose()), ("007", "123456"));
            Ok(())
        });
    }

    #[test]
    fn what_is_printed_has_no_secrets_and_can_be_read_again() {
        Jail::expect_with(|_| {
            let text = printed(&["--door.word", "sesame", "--print-config"]);
            assert!(text.contains("width = 90") && !text.contains("sesame"), "{text}");
            let again = toml::from_str::<Shop>(&text).unwrap_err().to_string();
            assert!(again.contains("asterisks"), "{again}");
            let _: Shop = toml::from_str(&printed(&["--print-config"])).unwrap();
            let help = printed(&["--help"]);
            assert!(
                help.contains("--door.width") && help.contains("Its width in centimetres") && help.contains("90"),
                "{help}"
            );
            Ok(())
        });
    }
}
