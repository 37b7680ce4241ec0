//! The one build script of the `proto-*` crates.
//!
//! Compiles `proto/souk/<area>/v1` without `protoc`, and reads the `souk.common.v1.rule` option of every RPC into a table
//! (`METHODS`) that the interceptors obey. An RPC without an access rule fails the build here: there is no default.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use prost_types::FileDescriptorSet;
use protox::prost::Message as _;

/// The options of `MethodOptions` that Souk reads.
const RULE: &str = "souk.common.v1.rule";
/// `google.protobuf.MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS`
const NO_SIDE_EFFECTS: i32 = 1;
/// `google.protobuf.MethodOptions.IdempotencyLevel.IDEMPOTENT`
const IDEMPOTENT: i32 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let package = env::var("CARGO_PKG_NAME")?;
    let area = package.strip_prefix("souk-proto-").ok_or("only souk-proto-* crates use this build script")?;
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let proto = root.join("proto");
    println!("cargo::rerun-if-changed={}", root.join("build.rs").display());
    println!("cargo::rerun-if-changed={}", proto.display());

    let folder = proto.join(format!("souk/{area}/v1"));
    let mut files = proto_files(&folder)?;
    if area == "common" {
        files.push(proto.join("third_party/google/rpc/status.proto"));
    }
    let mut compiler = protox::Compiler::new([&proto, &proto.join("third_party")])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;

    // `encode_file_descriptor_set` keeps the options that are extensions (google.api.http, ours); the typed set loses them.
    let encoded = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), &encoded)?;

    let pool = DescriptorPool::decode(encoded.as_slice())?;
    fs::write(out.join("methods.rs"), methods_table(&pool, &format!("souk.{area}.v1"))?)?;

    let mut set = FileDescriptorSet::decode(encoded.as_slice())?;
    let own = format!("souk.{area}.v1");
    for file in &mut set.file {
        // Filtering imported files out panics prost-build; without their services they generate nothing here.
        if file.package() != own {
            file.service.clear();
        }
    }
    generate(area, set)
}

fn generate(area: &str, set: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut config = prost_build::Config::new();
    config.btree_map(["."]).enable_type_names().skip_source_info();
    let mut builder = tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .extern_path(".google.api", "::souk_proto_common::google_api");
    if area != "common" {
        builder = builder
            .extern_path(".souk.common.v1", "::souk_proto_common::v1")
            .extern_path(".google.rpc", "::souk_proto_common::google_rpc");
    }
    Ok(builder.compile_fds_with_config(set, config)?)
}

fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    files.sort();
    Ok(files)
}

/// The Rust source of `METHODS`, one row an RPC of `package`.
fn methods_table(pool: &DescriptorPool, package: &str) -> Result<String, Box<dyn Error>> {
    let mut rows = String::new();
    for service in pool.services().filter(|service| service.package_name() == package) {
        for method in service.methods() {
            let access = access(pool, &method)?;
            let path = format!("/{}/{}", service.full_name(), method.name());
            let read_only = idempotency_level(&method) == NO_SIDE_EFFECTS;
            let has_key = method.input().get_field_by_name("request_id").is_some();
            let keyed = has_key || idempotency_level(&method) == IDEMPOTENT;
            let shape = match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => "Unary",
                (true, false) => "ClientStream",
                (false, true) => "ServerStream",
                (true, true) => "BidiStream",
            };
            writeln!(
                rows,
                "    Method {{ path: {path:?}, access: Access::{access}, shape: Shape::{shape}, read_only: {read_only}, keyed: {keyed} }},"
            )?;
        }
    }
    Ok(format!("{{\n    use ::souk_proto_common::{{Access, Method, Shape}};\n    &[\n{rows}]\n}}\n"))
}

/// The access rule of `method`, as the source of an `Access`. No rule: no build.
fn access(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<String, Box<dyn Error>> {
    let missing = || format!("{} has no access rule: set option ({RULE})", method.full_name());
    let extension = pool.get_extension_by_name(RULE).ok_or_else(missing)?;
    let options: DynamicMessage = method.options();
    if !options.has_extension(&extension) {
        return Err(missing().into());
    }
    let value = options.get_extension(&extension);
    let rule = value.as_message().ok_or_else(missing)?;
    if let Some(Value::Bool(true)) = rule.get_field_by_name("public").as_deref() {
        return Ok("Public".into());
    }
    if let Some(Value::Bool(true)) = rule.get_field_by_name("signed_in").as_deref() {
        return Ok("SignedIn".into());
    }
    match rule.get_field_by_name("scope").as_deref() {
        Some(Value::String(scope)) if !scope.is_empty() => Ok(format!("Scope({scope:?})")),
        _ => Err(missing().into()),
    }
}

fn idempotency_level(method: &MethodDescriptor) -> i32 {
    let options = method.options();
    match options.get_field_by_name("idempotency_level").as_deref() {
        Some(Value::EnumNumber(level)) => *level,
        _ => 0,
    }
}
