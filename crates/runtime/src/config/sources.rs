//! Where values come from, and which one counts.

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::settings::Setting;
use super::{CONFIG, Config, Error};

/// What the environment names settings with.
pub(super) const PREFIX: &str = "SOUK_";
/// Variables that begin as settings do and are none.
const NO_SETTINGS: [&str; 3] = ["SOUK_FAILPOINT", "SOUK_TEST_NATS", "SOUK_TEST_POSTGRES"];
/// `SOUK_A__B_FILE` names the file that has the value of `a.b`.
const FILE: &str = "_FILE";
/// No value is longer; a file that is was not meant.
const FILE_BYTES_MAX: u64 = 64 * 1_024;

/// The configuration that the command line, the environment and the file come to.
pub(super) fn extract<C: Config>(settings: &[Setting], matches: &ArgMatches) -> Result<C, Error> {
    let files = named_files(settings)?;
    let figment = layers::<C>(settings, &files, matches)?;
    figment.extract().map_err(|error| untold(&files, &error).unwrap_or_else(|| Box::new(error).into()))
}

fn layers<C: Config>(settings: &[Setting], files: &[NamedFile], matches: &ArgMatches) -> Result<Figment, Error> {
    let mut figment = Figment::from(Serialized::defaults(C::default()));
    if let Some(file) = matches.get_one::<PathBuf>(CONFIG) {
        figment = figment.merge(Toml::file_exact(file));
    }
    // What is no leaf: an entry of a map, or no setting at all, which is an error.
    let mut known: Vec<String> = settings.iter().map(Setting::variable).collect();
    known.extend(NO_SETTINGS.map(str::to_owned));
    known.extend(files.iter().map(|file| file.variable.clone()));
    let others = Env::prefixed(PREFIX)
        .filter(move |key| !known.iter().any(|known| known[PREFIX.len()..].eq_ignore_ascii_case(key.as_str())));
    figment = figment.merge(others.split("__"));
    for setting in settings {
        if let Ok(text) = env::var(setting.variable()) {
            figment = figment.merge(Given::new("environment variable", &setting.path, &text, setting.is_text));
        }
    }
    for file in files {
        // What is no leaf is an entry of a map, and what is kept in a file of its own is a text.
        let is_text = settings.iter().find(|setting| setting.path == file.setting).is_none_or(|known| known.is_text);
        figment = figment.merge(Given::new(&file.variable, &file.setting, &file.read()?, is_text));
    }
    for setting in settings {
        if let Some(text) = matches.get_one::<String>(&setting.path) {
            figment = figment.merge(Given::new("command line", &setting.path, text, setting.is_text));
        }
    }
    Ok(figment)
}

/// The value of a setting, as one source has it.
struct Given {
    source: String,
    value: Dict,
}

impl Given {
    fn new(source: &str, path: &str, text: &str, is_text: bool) -> Self {
        let value =
            if is_text { Value::from(text) } else { text.parse().unwrap_or_else(|never: Infallible| match never {}) };
        Self { source: source.to_owned(), value: nested(path, value) }
    }
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
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

/// A file that a variable names.
struct NamedFile {
    variable: String,
    file: PathBuf,
    /// The setting whose value it has.
    setting: String,
}

/// Those that the environment names. A setting that itself ends in `_file` is no such name.
fn named_files(settings: &[Setting]) -> Result<Vec<NamedFile>, Error> {
    let mut files = Vec::new();
    for (variable, file) in env::vars_os() {
        let Some(variable) = variable.to_str() else { continue };
        let Some(twin) = variable.strip_suffix(FILE) else { continue };
        let Some(setting) = twin.strip_prefix(PREFIX) else { continue };
        if settings.iter().any(|setting| setting.variable() == variable) {
            continue;
        }
        if env::var_os(twin).is_some() {
            return Err(Error::Twice(twin.to_owned()));
        }
        let setting = setting.to_lowercase().replace("__", ".");
        files.push(NamedFile { variable: variable.to_owned(), file: file.into(), setting });
    }
    Ok(files)
}

impl NamedFile {
    /// What is in it, but for the newline that an editor leaves at the end.
    fn read(&self) -> Result<String, Error> {
        let text = read(&self.file).map_err(|problem| self.error(problem))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }

    fn error(&self, problem: String) -> Error {
        Error::File { variable: self.variable.clone(), file: self.file.clone(), problem }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
    }
    // The error of the standard library shows what it could not read.
    String::from_utf8(bytes).map_err(|_| "is no text".to_owned())
}

/// The error, if it is of a value that came from one of the files: without the value.
fn untold(files: &[NamedFile], error: &figment::Error) -> Option<Error> {
    error.clone().into_iter().find_map(|error| {
        let file = files.iter().find(|file| error.metadata.as_ref().is_some_and(|from| from.name == file.variable))?;
        match error.kind {
            Kind::UnknownField(..) => Some(file.error(format!("would set {}, which is no setting", file.setting))),
            _ => Some(file.error(format!("has no value that {} can have", file.setting))),
        }
    })
}
