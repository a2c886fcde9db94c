use super::*;

const APP: SdkAppId = SdkAppId(1);
const NOW: Duration = Duration::from_secs(100);

fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

fn gateway(name: &str) -> NodeId {
    NodeId::trusted(name)
}

fn direct(text: &'static str) -> Arc<Direct> {
    Arc::new(Direct {
        conv: 7,
        epoch: 1,
        batch: Bytes::from_static(text.as_bytes()),
        announce: Bytes::from_static(b"head"),
    })
}

fn batches(freed: &[Freed]) -> Vec<(&str, &[u8])> {
    freed.iter().map(|one| (one.gateway.as_str(), &one.batch[..])).collect()
}

#[test]
fn sends_wait_in_order_for_the_first_answer() {
    let mut places = Places::default();
    let users = [user("alice")];
    assert!(places.route(NOW, APP, &users, &direct("1")).is_empty());
    assert!(places.route(NOW, APP, &users, &direct("2")).is_empty());
    let key = (APP, user("alice"));
    assert_eq!(places.take_wanted(), std::slice::from_ref(&key));
    assert!(places.take_wanted().is_empty(), "asked once");
    let freed = places.answer(NOW, &key, vec![gateway("a")], 5);
    assert_eq!(batches(&freed), [("a", &b"1"[..]), ("a", &b"2"[..])]);
    assert_eq!(places.route(NOW, APP, &users, &direct("3")), [(gateway("a"), vec![0])]);
}

#[test]
fn a_newer_hint_beats_the_answer_on_its_way() {
    let mut places = Places::default();
    let users = [user("alice")];
    let key = (APP, user("alice"));
    places.route(NOW, APP, &users, &direct("1"));
    assert_eq!(batches(&places.hint(NOW, &key, vec![gateway("b")], 9)), [("b", &b"1"[..])]);
    assert!(places.answer(NOW, &key, vec![gateway("a")], 8).is_empty());
    assert!(places.hint(NOW, &key, vec![gateway("a")], 9).is_empty(), "a repeated hint is no change");
    assert_eq!(places.route(NOW, APP, &users, &direct("2")), [(gateway("b"), vec![0])]);
}

#[test]
fn a_gained_gateway_hears_how_far_things_are() {
    let mut places = Places::default();
    let users = [user("alice")];
    let key = (APP, user("alice"));
    places.route(NOW, APP, &users, &direct("1"));
    places.answer(NOW, &key, Vec::new(), 5);
    places.route(NOW, APP, &users, &direct("2"));
    let freed = places.hint(NOW + Duration::from_secs(1), &key, vec![gateway("b")], 6);
    assert_eq!(batches(&freed), [("b", &b"head"[..])]);
    let later = places.hint(NOW + Duration::from_secs(9), &key, vec![gateway("c")], 7);
    assert!(later.is_empty(), "what is older was covered by his own sync");
}

#[test]
fn entries_are_renewed_in_use_and_end_otherwise() {
    let mut places = Places::default();
    let users = [user("alice")];
    let key = (APP, user("alice"));
    places.route(NOW, APP, &users, &direct("1"));
    places.take_wanted();
    places.answer(NOW, &key, vec![gateway("a")], 5);
    let aging = NOW + REFRESH_AT + Duration::from_secs(1);
    assert_eq!(places.route(aging, APP, &users, &direct("2")).len(), 1, "still served");
    assert_eq!(places.take_wanted(), std::slice::from_ref(&key));
    let old = NOW + FRESH_FOR + Duration::from_secs(1);
    assert!(places.route(old, APP, &users, &direct("3")).is_empty(), "too old to be used");
    assert_eq!(batches(&places.answer(old, &key, vec![gateway("a")], 5)).last(), Some(&("a", &b"3"[..])));
    places.sweep(old + FRESH_FOR * 2);
    assert!(places.users.is_empty() && places.order.is_empty());
}

#[test]
fn without_an_answer_every_gateway_is_tried() {
    let mut places = Places::default();
    let key = (APP, user("alice"));
    places.route(NOW, APP, &[user("alice")], &direct("1"));
    let freed = places.guess(NOW, &key, &[gateway("a"), gateway("b")]);
    assert_eq!(batches(&freed), [("a", &b"1"[..]), ("b", &b"1"[..])]);
    assert!(
        places.route(NOW + GUESS_FOR * 2, APP, &[user("alice")], &direct("2")).is_empty(),
        "a guess is short-lived"
    );
}

#[test]
fn a_gateway_that_was_guessed_in_vain_costs_one_message() {
    let mut places = Places::default();
    let (key, users, both) = ((APP, user("alice")), [user("alice")], [gateway("a"), gateway("b")]);
    places.route(NOW, APP, &users, &direct("1"));
    places.take_wanted();
    places.guess(NOW, &key, &both);
    places.moved(&key, &gateway("a"));
    assert!(places.take_wanted().is_empty(), "the session service is away: asking again brings the same guess");
    let soon = NOW + GUESS_FOR / 2;
    assert_eq!(places.route(soon, APP, &users, &direct("2")), [(gateway("b"), vec![0])]);
    let later = soon + GUESS_FOR * 2;
    places.route(later, APP, &users, &direct("3"));
    assert_eq!(places.take_wanted(), std::slice::from_ref(&key));
    let freed = places.guess(later, &key, &both);
    let to =
        |name| batches(&freed).into_iter().filter(|(to, _)| *to == name).map(|(_, batch)| batch).collect::<Vec<_>>();
    assert_eq!(to("b"), [b"3"], "what it was sent before is not repeated");
    assert_eq!(to("a").last(), Some(&&b"3"[..]), "he may be there by now");
    let back = places.answer(later + GUESS_FOR, &key, vec![gateway("b")], 5);
    assert!(back.is_empty());
    places.moved(&key, &gateway("b"));
    assert_eq!(places.take_wanted(), std::slice::from_ref(&key), "no guess: asked again");
}

#[test]
fn waiting_is_bounded_and_the_rest_is_announced() {
    let mut places = Places::default();
    let key = (APP, user("alice"));
    for _ in 0..WAITING_MAX + 10 {
        places.route(NOW, APP, &[user("alice")], &direct("m"));
    }
    let freed = places.answer(NOW, &key, vec![gateway("a")], 1);
    assert_eq!(freed.len(), WAITING_MAX + 1);
    assert_eq!(&freed[0].batch[..], b"head");
}
