//! Configuration: defaults < file < environment < flags.
//!
//! The configuration of a binary is one struct. Its fields are the settings, their doc comments the help. A setting `database.url` is
//! `url` under `[database]` in the file, `SOUK_DATABASE__URL` in the environment, `--database.url` on the command line; and the file that
//! `SOUK_DATABASE__URL_FILE` names may hold its value, as secrets are handed to containers. A key that the struct does not have is an error,
//! wherever it stands.

mod page;
mod settings;
mod sources;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use settings::{Setting, settings};

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

/// What the command line came to.
#[derive(Debug)]
pub enum Loaded<C> {
    /// Run with this configuration; the matches have the sub-command and the flags beside the settings.
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
    /// A file that a variable names, and that gives no value. What is in it may be a secret: it is not told.
    #[error("{variable} names {}, which {problem}", .file.display())]
    File {
        /// The variable.
        variable: String,
        /// What it names.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A variable and its twin, of which one must win.
    #[error("{0} and {0}_FILE are both set")]
    Twice(String),
    /// Values that cannot be, all of them.
    #[error("the configuration cannot be used:\n  {}", .0.join("\n  "))]
    Invalid(Vec<String>),
    /// The configuration cannot be printed.
    #[error("the configuration cannot be printed")]
    Print(#[from] toml::ser::Error),
}

/// Loads the settings for the command line `args`, whose first word is the program. `command` is the binary's own: settings are taken
/// before and after each of its sub-commands.
pub fn load<C: Config>(command: Command, args: impl IntoIterator<Item = OsString>) -> Result<Loaded<C>, Error> {
    let settings = settings::<C>();
    let matches = match with_settings(command, &settings).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(shown) if !shown.use_stderr() => return Ok(Loaded::Print(rendered(&shown.render()))),
        Err(error) => return Err(error.into()),
    };
    if matches.get_flag(PRINT_SETTINGS) {
        return Ok(Loaded::Print(page::page::<C>(&settings)));
    }
    let config: C = sources::extract(&settings, &matches)?;
    let mut problems = Vec::new();
    config.validate(&mut problems);
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    if matches.get_flag(PRINT_CONFIG) {
        return Ok(Loaded::Print(toml::to_string_pretty(&config)?));
    }
    Ok(Loaded::Run(config, matches))
}

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print-config";
/// For `docs/settings.md`.
const PRINT_SETTINGS: &str = "print-settings";

/// In colours where somebody sees them.
fn rendered(text: &clap::builder::StyledStr) -> String {
    if std::io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() }
}

fn with_settings(command: Command, settings: &[Setting]) -> Command {
    let settings = settings.iter().map(|setting| {
        let id = setting.path.clone();
        let arg = Arg::new(id.clone()).long(id).help(setting.help()).value_name("VALUE").help_heading("Settings");
        arg.global(true).hide_short_help(true)
    });
    let file = Arg::new(CONFIG).long(CONFIG).value_name("FILE").help("A TOML file with settings");
    let print = Arg::new(PRINT_CONFIG).long(PRINT_CONFIG).help("Print the settings as they are in effect, and end");
    command
        .version(env!("CARGO_PKG_VERSION"))
        .arg(file.value_parser(clap::value_parser!(PathBuf)).global(true))
        .arg(print.action(ArgAction::SetTrue).global(true))
        .arg(Arg::new(PRINT_SETTINGS).long(PRINT_SETTINGS).action(ArgAction::SetTrue).hide(true))
        .args(settings)
}

#[cfg(test)]
#[expect(clippy::result_large_err, reason = "figment's Jail takes closures with its own error")]
mod tests {
    use std::collections::BTreeMap;

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
        /// Who brings what.
        suppliers: BTreeMap<String, Supplier>,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Supplier {
        word: Secret,
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
        /// The file with its plan.
        plan_file: String,
    }

    impl Default for Door {
        fn default() -> Self {
            Self { width: 90, keys: Vec::new(), word: Secret::default(), plan_file: String::new() }
        }
    }

    impl Config for Shop {
        fn validate(&self, problems: &mut Vec<String>) {
            check_bounds(problems, "door", 1..=500, &[("width", self.door.width.into())]);
        }
    }

    fn run(args: &[&str]) -> Result<Loaded<Shop>, Error> {
        let command = Command::new("shop").subcommand(Command::new("open"));
        load(command, std::iter::once("shop").chain(args.iter().copied()).map(OsString::from))
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
    fn a_value_can_stand_in_a_file_that_a_variable_names() {
        Jail::expect_with(|jail| {
            jail.create_file("word", "sesame\n")?;
            jail.create_file("width", "70\r\n")?;
            jail.create_file("shop.toml", "[door]\nword = \"shibboleth\"\n")?;
            jail.set_env("SOUK_DOOR__WORD_FILE", "word");
            jail.set_env("SOUK_DOOR__WIDTH_FILE", "width");
            jail.set_env("SOUK_SUPPLIERS__MILL__WORD_FILE", "word");
            jail.set_env("SOUK_DOOR__PLAN_FILE", "plan.svg");
            let shop = loaded(&["--config", "shop.toml"]);
            assert_eq!((shop.door.word.expose(), shop.door.width), ("sesame", 70));
            assert_eq!(shop.suppliers["mill"].word.expose(), "sesame");
            assert_eq!(shop.door.plan_file, "plan.svg"); // a setting of that name is that setting
            assert_eq!(loaded(&["--door.width", "71"]).door.width, 71);
            Ok(())
        });
    }

    #[test]
    fn a_file_that_has_no_value_is_named_and_what_is_in_it_is_not_told() {
        let refused = |variable: &str, content: &[u8]| {
            let mut told = String::new();
            Jail::expect_with(|jail| {
                let file = jail.directory().join("given");
                std::fs::write(&file, content).unwrap();
                jail.set_env(variable, file.display());
                told = run(&[]).unwrap_err().to_string();
                Ok(())
            });
            assert!(told.starts_with(&format!("{variable} names ")) && told.contains("/given"), "{told}");
            assert!(!told.contains("sesame"), "{told}");
            told
        };
        assert!(refused("SOUK_DOOR__WIDTH_FILE", b"sesame").contains("has no value that door.width can have"));
        assert!(refused("SOUK_DOOR__WIDHT_FILE", b"sesame").contains("would set door.widht, which is no setting"));
        assert!(refused("SOUK_NAME_FILE", b"sesame \xff").contains("is no text"));
        let large = "sesame ".repeat(10_000).into_bytes();
        assert!(refused("SOUK_NAME_FILE", &large).contains("has more than 65536 bytes"));
        Jail::expect_with(|jail| {
            jail.set_env("SOUK_DOOR__WORD_FILE", "missing");
            assert!(
                run(&[]).unwrap_err().to_string().contains("SOUK_DOOR__WORD_FILE names missing, which cannot be read")
            );
            jail.set_env("SOUK_DOOR__WORD", "sesame");
            let told = run(&[]).unwrap_err().to_string();
            assert_eq!(told, "SOUK_DOOR__WORD and SOUK_DOOR__WORD_FILE are both set");
            Ok(())
        });
    }

    #[test]
    fn settings_stand_before_and_after_a_subcommand() {
        Jail::expect_with(|jail| {
            jail.create_file("shop.toml", "name = \"file\"\n")?;
            for args in [
                ["--config", "shop.toml", "--door.width", "3", "open"],
                ["--config", "shop.toml", "open", "--door.width", "3"],
                ["open", "--config", "shop.toml", "--door.width", "3"],
            ] {
                let shop = loaded(&args);
                assert_eq!((shop.name.as_str(), shop.door.width), ("file", 3), "{args:?}");
            }
            assert!(printed(&["open", "--print-config", "--door.width", "3"]).contains("width = 3"));
            assert!(printed(&["open", "--help"]).contains("--door.width"));
            assert!(!printed(&["open", "-h"]).contains("--door.width"));
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
