use proptest::prelude::*;

use super::*;

/// Through HTTP headers and back, as over a connection.
fn over_the_wire(status: Status) -> Status {
    let response = status.into_http::<()>();
    Status::from_header_map(response.headers()).expect("a status")
}

proptest! {
    #[test]
    fn refusal_round_trips(code: u32, info in "\\PC{0,200}", retry: Option<u32>) {
        let refusal = Refusal { code, info, retry_after_ms: retry };
        prop_assert_eq!(from_status(&over_the_wire(to_status(&refusal))), Some(refusal));
    }

    #[test]
    fn timeout_parser_never_panics(text in "\\PC{0,12}") {
        let mut headers = http::HeaderMap::new();
        if let Ok(value) = http::HeaderValue::from_str(&text) {
            headers.insert(TIMEOUT_KEY, value);
        }
        let _ = timeout_of(&headers);
    }
}

#[test]
fn long_info_is_cut_at_a_character() {
    let refusal = Refusal::new(code::BUSY, "测".repeat(2000));
    let back = from_status(&to_status(&refusal)).expect("a refusal");
    assert_eq!(back.info, "测".repeat(682));
}

#[test]
fn transport_failure_is_retryable_busy_and_faults_are_not_refusals() {
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::ResourceExhausted] {
        let refusal = from_status(&Status::new(code, "")).expect("a refusal");
        assert_eq!((refusal.code, refusal.retry_after_ms), (code::BUSY, Some(TRANSPORT_RETRY_MS)), "{code:?}");
    }
    for code in [Code::Internal, Code::Unknown, Code::Unimplemented, Code::DataLoss] {
        assert_eq!(from_status(&Status::new(code, "")), None, "{code:?}");
        assert_eq!(refusal_or(&Status::new(code, ""), code::GROUP_INTERNAL).code, code::GROUP_INTERNAL);
    }
}

#[test]
fn only_silence_leaves_the_outcome_unknown() {
    assert!(outcome_unknown(&Status::deadline_exceeded("")));
    assert!(!outcome_unknown(&to_status(&Refusal::retry(code::BUSY, "", 5))));
    assert!(!outcome_unknown(&Status::resource_exhausted("shed before it ran")));
}

#[test]
fn deadline_and_epoch_travel_in_metadata() {
    let request = with_epoch(with_deadline((), Duration::from_millis(1500)), Epoch(9));
    assert_eq!(time_left(&request), Some(Duration::from_millis(1500)));
    assert_eq!(epoch_of(&request), Some(Epoch(9)));
    assert_eq!((time_left(&Request::new(())), epoch_of(&Request::new(()))), (None, None));
}
