//! Compiles every `.proto` below `linnet/` with a pure-Rust compiler (no `protoc` is needed), and writes the JSON form of
//! the client protocol: a frame is one object whose key names its kind, and message bodies are embedded as they are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};
use tonic_prost_build::FileDescriptorSet;

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

const CLIENT: &str = "linnet.client.v1";
/// Fields that hold JSON text: embedded, not quoted.
const EMBEDDED: &[&str] = &["Send.body", "Send.offline_push", "Sent.body", "Message.body", "Notice.data"];

fn protos(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, found)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn camel(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

fn main() -> AnyResult<()> {
    println!("cargo:rerun-if-changed=linnet");
    let mut files = Vec::new();
    protos(Path::new("linnet"), &mut files)?;
    files.sort();
    let mut descriptors = protox::compile(&files, ["."])?;
    if std::env::var_os("CARGO_FEATURE_NEXT").is_some() {
        next_build(&mut descriptors);
    }
    let mut build = tonic_prost_build::configure().bytes(".");
    for message in client_messages(&descriptors) {
        if choice(message).is_some() {
            continue;
        }
        let path = format!(".{CLIENT}.{}", message.name());
        build = build
            .message_attribute(&path, "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(&path, "#[serde(default)]");
        for field in &message.field {
            let path = format!("{path}.{}", field.name());
            build = build.field_attribute(&path, "#[serde(skip_serializing_if = \"crate::json::is_default\")]");
            if field.name() == "self" {
                // The generated field is called `self_`; on the wire it is what the page says.
                build = build.field_attribute(&path, "#[serde(rename = \"self\")]");
            }
            if EMBEDDED.contains(&format!("{}.{}", message.name(), field.name()).as_str()) {
                build = build.field_attribute(&path, "#[serde(with = \"crate::json::embedded\")]");
            }
        }
    }
    build.compile_fds(descriptors.clone())?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("client_json.rs");
    std::fs::write(out, choices(&descriptors)?)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("streaming.rs");
    std::fs::write(out, streaming(&descriptors)?)?;
    Ok(())
}

/// What the next version might add: a field of `Append`, and a control record.
fn next_build(set: &mut FileDescriptorSet) {
    let mut add = |package: &str, message: &str, kind: Type, oneof_index| {
        for file in set.file.iter_mut().filter(|file| file.package() == package) {
            // It knows nothing of the field, and the generator insists.
            file.source_code_info = None;
            for found in file.message_type.iter_mut().filter(|found| found.name() == message) {
                found.field.push(FieldDescriptorProto {
                    name: Some("next_build".to_owned()),
                    json_name: Some("nextBuild".to_owned()),
                    number: Some(99),
                    label: Some(Label::Optional.into()),
                    r#type: Some(kind.into()),
                    oneof_index,
                    ..FieldDescriptorProto::default()
                });
            }
        }
    };
    add("linnet.messages.v1", "AppendRequest", Type::String, None);
    add("linnet.delivery.v1", "Control", Type::Bool, Some(0));
}

/// The paths of methods that stream, which a transport cannot tell from their first message.
fn streaming(set: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut out = String::from(
        "/// HTTP paths of the methods with a stream of requests or replies.\npub const STREAMING: &[&str] = &[\n",
    );
    for file in &set.file {
        for service in &file.service {
            for method in service.method.iter().filter(|m| m.client_streaming() || m.server_streaming()) {
                writeln!(out, "\"/{}.{}/{}\",", file.package(), service.name(), method.name())?;
            }
        }
    }
    writeln!(out, "];")?;
    Ok(out)
}

type Message = prost_types::DescriptorProto;

fn client_messages(set: &FileDescriptorSet) -> impl Iterator<Item = &Message> {
    set.file.iter().filter(|file| file.package() == CLIENT).flat_map(|file| &file.message_type)
}

/// The name of the message's real `oneof`, if it has one.
fn choice(message: &Message) -> Option<&str> {
    let index = message.field.iter().find(|f| f.oneof_index.is_some() && !f.proto3_optional())?.oneof_index?;
    message.oneof_decl.get(usize::try_from(index).ok()?).map(|decl| decl.name())
}

/// Serialize and Deserialize for messages with a `oneof`: written out, because `flatten` cannot carry embedded JSON.
fn choices(set: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for message in client_messages(set) {
        let Some(choice) = choice(message) else { continue };
        let name = message.name();
        let module = name.to_lowercase();
        let (kinds, plain): (Vec<_>, Vec<_>) = message.field.iter().partition(|f| f.oneof_index.is_some());
        let (mut ser, mut de) = (String::new(), String::new());
        for field in plain {
            let field = field.name();
            writeln!(
                ser,
                "if !crate::json::is_default(&self.{field}) {{ map.serialize_entry(\"{field}\", &self.{field})?; }}"
            )?;
            writeln!(de, "\"{field}\" => out.{field} = map.next_value()?,")?;
        }
        writeln!(ser, "match &self.{choice} {{ None => {{}}")?;
        for kind in &kinds {
            let (kind, variant) = (kind.name(), camel(kind.name()));
            let path = format!("client::{module}::{}::{variant}", camel(choice));
            writeln!(ser, "Some({path}(value)) => map.serialize_entry(\"{kind}\", value)?,")?;
            writeln!(
                de,
                "\"{kind}\" => {{ if out.{choice}.is_some() {{ return Err(serde::de::Error::custom(\"more than one kind\")); }} out.{choice} = Some({path}(map.next_value()?)); }}"
            )?;
        }
        writeln!(ser, "}}")?;
        write!(
            out,
            "impl serde::Serialize for client::{name} {{
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {{
                    use serde::ser::SerializeMap;
                    let mut map = serializer.serialize_map(None)?;
                    {ser}
                    map.end()
                }}
            }}
            impl<'de> serde::Deserialize<'de> for client::{name} {{
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {{
                    struct Fields;
                    impl<'de> serde::de::Visitor<'de> for Fields {{
                        type Value = client::{name};
                        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(\"an object\") }}
                        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {{
                            let mut out = client::{name}::default();
                            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {{
                                match key.as_ref() {{
                                    {de}
                                    _ => {{ map.next_value::<serde::de::IgnoredAny>()?; }}
                                }}
                            }}
                            Ok(out)
                        }}
                    }}
                    deserializer.deserialize_map(Fields)
                }}
            }}\n"
        )?;
    }
    Ok(out)
}
