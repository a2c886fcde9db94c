//! Every example of `docs/protocol.md` is written by this test's frames, so the page cannot drift from the protocol.
//!
//! An example is a `json` block after `<!-- example: name -->`. `UPDATE_DOCS=1 cargo test -p linnet-client --test
//! protocol_page` rewrites the blocks.

mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use examples::examples;
use linnet_client::proto::Frame;

fn page_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md")
}

/// The blocks of the page by name, with their place in the text.
fn blocks(page: &str) -> BTreeMap<String, std::ops::Range<usize>> {
    let mut found = BTreeMap::new();
    let mut from = 0;
    while let Some(at) = page[from..].find("<!-- example: ") {
        let name_at = from + at + "<!-- example: ".len();
        let name_end = name_at + page[name_at..].find(" -->").expect("a closed marker");
        let start =
            name_end + page[name_end..].find("```json\n").expect("a block after the marker") + "```json\n".len();
        let end = start + page[start..].find("\n```").expect("a closed block");
        let name = page[name_at..name_end].to_owned();
        assert!(found.insert(name.clone(), start..end).is_none(), "{name} is there twice");
        from = end;
    }
    found
}

#[test]
fn every_example_of_the_page_is_what_the_protocol_writes() {
    let page = std::fs::read_to_string(page_path()).expect("docs/protocol.md");
    let examples: BTreeMap<_, _> = examples().into_iter().collect();
    let found = blocks(&page);
    let names: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, examples.keys().copied().collect(), "the page and the test have the same examples");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let mut page = page;
        let mut places: Vec<_> = found.into_iter().collect();
        places.sort_by_key(|(_, place)| std::cmp::Reverse(place.start));
        for (name, place) in places {
            let json = serde_json::to_string(&examples[name.as_str()]).expect("plain data");
            page.replace_range(place, &json);
        }
        std::fs::write(page_path(), page).expect("writes");
        return;
    }
    for (name, place) in found {
        let json = serde_json::to_string(&examples[name.as_str()]).expect("plain data");
        assert_eq!(page[place], json, "example {name}: run with UPDATE_DOCS=1");
    }
}

#[test]
fn every_example_is_read_back_as_it_was() {
    for (name, example) in examples() {
        let json = serde_json::to_string(&example).expect("plain data");
        assert_eq!(serde_json::from_str::<Frame>(&json).expect(name), example, "{name}");
        let bytes = prost::Message::encode_to_vec(&example);
        assert_eq!(<Frame as prost::Message>::decode(&bytes[..]).expect(name), example, "{name}");
    }
}

#[test]
fn every_kind_of_frame_and_item_has_an_example() {
    let proto = include_str!("../../../proto/linnet/client/v1/client.proto");
    let kinds = |from: &str| -> BTreeSet<String> {
        let start = proto.find(from).expect("the message is there");
        let body = &proto[start..start + proto[start..].find("\n  }").expect("its oneof ends")];
        let field = |line: &str| {
            let mut words = line.trim().strip_suffix(';')?.split(' ');
            let (_, name, equals) = (words.next()?, words.next()?, words.next()?);
            (equals == "=").then(|| name.to_owned())
        };
        body.lines().skip_while(|line| !line.contains("oneof")).filter_map(field).collect()
    };
    let text: String = examples().iter().map(|(_, e)| serde_json::to_string(e).expect("plain data")).collect();
    let frames = kinds("message Frame {");
    assert!(frames.len() > 50, "{frames:?}");
    for kind in frames.iter().chain(&kinds("message Item {")) {
        assert!(text.contains(&format!("\"{kind}\":")), "{kind} has no example");
    }
}
