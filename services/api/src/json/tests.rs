use proptest::prelude::*;

use super::*;

const MISSING: u32 = 1;
const WRONG: u32 = 2;
const OVER: u32 = 3;

fn object(json: &str) -> Object<'_> {
    Object::parse(json).expect(json)
}

fn code_of<T: fmt::Debug>(result: Result<T, Refusal>) -> u32 {
    result.expect_err("must be refused").code
}

#[test]
fn only_objects_are_objects() {
    for bad in ["", "1", "[]", "\"{}\"", "{", "{}{}", "{\"a\":}", "null", "{a:1}", "{\"a\":NaN}", "{\"a\":1,}"] {
        assert!(Object::parse(bad).is_none(), "{bad}");
    }
    assert!(Object::parse(" {} ").is_some());
}

#[test]
fn missing_and_wrong_are_told_apart() {
    let body = object(r#"{"a":"x","n":5,"null":null}"#);
    assert_eq!(body.at("a").string(WRONG).expect("a string").need(MISSING).expect("there"), "x");
    assert_eq!(code_of(body.at("n").string(WRONG)), WRONG);
    for absent in ["null", "nothing"] {
        assert_eq!(code_of(body.at(absent).string(WRONG).expect("absent").need(MISSING)), MISSING, "{absent}");
    }
}

#[test]
fn both_spellings_and_any_case() {
    let body = object(r#"{"ShutUpTime":7,"toGROUPid":"g","Both":null,"Other":1}"#);
    assert_eq!(body.any(&["MuteTime", "ShutUpTime"]).number::<u32>(WRONG).expect("number").value, Some(7));
    assert_eq!(body.any(&["Both", "Other"]).number::<u32>(WRONG).expect("number").value, Some(1));
    assert_eq!(body.any_case("ToGroupId").string(WRONG).expect("string").or_default(), "g");
}

#[test]
fn the_last_of_a_repeated_key_counts_and_escaped_keys_match() {
    let body = object(r#"{"a":1,"a":2,"\u0062":3}"#);
    assert_eq!(body.at("a").number::<u64>(WRONG).expect("number").value, Some(2));
    assert_eq!(body.at("b").number::<u64>(WRONG).expect("number").value, Some(3));
}

#[test]
fn numbers_are_whole_and_in_range() {
    let body = object(r#"{"big":4294967296,"neg":-1,"real":5.0,"text":"7","bool":true,"max":4294967295}"#);
    for bad in ["big", "neg", "real", "text", "bool"] {
        assert_eq!(code_of(body.at(bad).number::<u32>(WRONG)), WRONG, "{bad}");
    }
    assert_eq!(body.at("max").number::<u32>(WRONG).expect("number").value, Some(u32::MAX));
    assert_eq!(body.at("text").number_or_text::<u32>(WRONG).expect("digits").value, Some(7));
    assert_eq!(body.at("none").number_or_text::<u32>(WRONG).expect("absent").value, None);
    for bad in [r#""""#, r#""-1""#, r#""1e3""#, r#""4294967296""#, r#""+1""#, "{}", "[1]"] {
        let json = format!("{{\"n\":{bad}}}");
        assert_eq!(code_of(object(&json).at("n").number_or_text::<u32>(WRONG)), WRONG, "{bad}");
    }
}

#[test]
fn switches_take_numbers_and_booleans() {
    let body = object(r#"{"a":0,"b":1,"c":true,"d":"1"}"#);
    let on = |name| body.at(name).switch(WRONG);
    assert_eq!((on("a"), on("b"), on("c"), on("none")), (Ok(false), Ok(true), Ok(true), Ok(false)));
    assert_eq!(code_of(body.at("d").switch(WRONG)), WRONG);
}

#[test]
fn lists_have_bounds_and_typed_elements() {
    let body = object(r#"{"l":["a","b"],"mixed":["a",1],"null":["a",null],"empty":[],"o":[{"k":1}],"s":"x"}"#);
    assert_eq!(body.at("l").strings(WRONG, OVER).expect("strings").need_within(2, MISSING, OVER), {
        Ok(vec!["a".into(), "b".into()])
    });
    assert_eq!(code_of(body.at("l").strings(WRONG, WRONG).expect("strings").need_within(1, MISSING, OVER)), OVER);
    assert_eq!(code_of(body.at("empty").strings(WRONG, WRONG).expect("list").need_within(1, MISSING, OVER)), MISSING);
    assert_eq!(code_of(body.at("mixed").strings(WRONG, OVER)), OVER);
    assert_eq!(code_of(body.at("null").strings(WRONG, OVER)), OVER);
    assert_eq!(code_of(body.at("s").strings(WRONG, OVER)), WRONG);
    assert_eq!(code_of(body.at("l").objects(WRONG)), WRONG);
    assert_eq!(body.at("o").objects(WRONG).expect("objects").or_default().len(), 1);
}

#[test]
fn ids_that_cannot_be_are_refused() {
    for bad in [r#""a\u0000""#, r#""""#, r#""@TGS#1""#, &format!("{:?}", "x".repeat(4096)), r#""测试""#] {
        let json = format!("{{\"u\":{bad}}}");
        assert_eq!(code_of(object(&json).at("u").user(WRONG, OVER)), OVER, "{bad}");
    }
    assert_eq!(code_of(object(r#"{"u":5}"#).at("u").user(WRONG, OVER)), WRONG);
    assert_eq!(object(r#"{"g":"a/b"}"#).at("g").group(), Ok("a/b".into()));
    assert_eq!(code_of(object(r#"{"g":"a\u0007"}"#).at("g").group()), code::GROUP_BAD_ID);
    assert_eq!(code_of(object(r#"{"g":7}"#).at("g").group()), code::GROUP_BAD_PARAM);
}

#[test]
fn values_come_out_as_they_went_in() {
    let body = object(r#"{"e": [ {"b":5.0,"a":12345678901234567890123} ] }"#);
    let raw = body.at("e").raw().value.expect("there").get();
    assert_eq!(raw, r#"[ {"b":5.0,"a":12345678901234567890123} ]"#);
}

proptest! {
    #[test]
    fn never_panics(text in ".{0,200}") {
        for json in [text.clone(), format!("{{{text}}}"), format!("{{\"a\":{text}}}")] {
            if let Some(body) = Object::parse(&json) {
                let field = body.at("a");
                let _ = (field.string(1), field.number::<u8>(1), field.strings(1, 2), field.objects(1));
                let _ = (field.switch(1), field.number_or_text::<u32>(1), field.user(1, 2), field.group());
            }
        }
    }
}
