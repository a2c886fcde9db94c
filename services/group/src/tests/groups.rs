use std::sync::atomic::Ordering;
use std::time::Duration;

use linnet_types::AppSettings;

use super::*;

async fn log(world: &World, id: &str) -> Vec<String> {
    let conv = world.conv(id).await;
    world.logs.of(conv).iter().map(what).collect()
}

#[tokio::test(start_paused = true)]
async fn creation_refuses_with_the_documented_codes() {
    let world = World::new(AppSettings::default()).await;
    let base = CreateRequest {
        app: APP.0,
        r#type: "Public".into(),
        name: "club".into(),
        owner: "alice".into(),
        origin: Some(admin()),
        ..CreateRequest::default()
    };
    let create = |change: fn(&mut CreateRequest)| {
        let mut request = base.clone();
        change(&mut request);
        let mut groups = world.groups();
        async move { done(groups.create(request).await).map(|reply| reply.group_id) }
    };
    let member = |user: &str| Member { user: user.into(), ..Member::default() };
    let _ = member;
    assert!(create(|_| {}).await.expect("created").starts_with("@TGS#"));
    assert!(create(|r| r.r#type = "Community".into()).await.expect("created").starts_with("@TGS#_@TGS#"));
    assert!(create(|r| r.r#type = "AVChatRoom".into()).await.expect("created").starts_with("@TGS#a"));
    assert_eq!(code(create(|r| r.r#type = "Room".into()).await), 10004);
    assert_eq!(code(create(|r| r.name = String::new()).await), 10004);
    assert_eq!(code(create(|r| r.name = "x".repeat(101)).await), 10004);
    assert_eq!(code(create(|r| r.owner = "ghost".into()).await), 10019);
    assert_eq!(code(create(|r| r.group_id = "@TGS#mine".into()).await), 10015);
    assert_eq!(code(create(|r| r.max_member_num = 6_001).await), 10038);
    let crowd = |r: &mut CreateRequest| {
        r.members = (0..101).map(|i| Member { user: format!("u{i}"), ..Member::default() }).collect();
    };
    assert_eq!(code(create(crowd).await), 10005);
    let live = |r: &mut CreateRequest| {
        r.r#type = "AVChatRoom".into();
        r.members = vec![Member { user: "bob".into(), ..Member::default() }];
    };
    assert_eq!(code(create(live).await), 10007);
    assert_eq!(create(|r| r.group_id = "mine".into()).await.expect("created"), "mine");
    assert_eq!(code(create(|r| r.group_id = "mine".into()).await), 10025);
    let other = |r: &mut CreateRequest| {
        r.group_id = "mine".into();
        r.owner = "bob".into();
    };
    assert_eq!(code(create(other).await), 10021);
    world.set(AppSettings { groups_per_user: 2, ..AppSettings::default() });
    assert_eq!(code(create(|_| {}).await), 10037);
}

#[tokio::test(start_paused = true)]
async fn joining_follows_the_kind_and_its_option() {
    let world = World::new(AppSettings::default()).await;
    for (kind, id, wanted) in [
        ("Meeting", "m", Ok("joined")),
        ("Community", "@TGS#_c", Ok("joined")),
        ("Public", "p", Ok("waiting")),
        ("AVChatRoom", "l", Ok("live")),
        ("Work", "w", Err(10007)),
    ] {
        world.create(kind, id, "alice", &[]).await;
        let got = world.join(id, "bob").await;
        assert_eq!(got.as_ref().map(|reply| reply.status.as_str()).map_err(|refusal| refusal.code), wanted, "{kind}");
    }
    assert_eq!(world.join("m", "bob").await.expect("in already").status, "already");
    assert_eq!(code(world.join("m", "ghost").await), 10019);
    let members = world.roles("@TGS#_c", &["alice", "bob", "carol"]).await;
    assert_eq!(members, ["Owner", "Member", "NotMember"]);
}

#[tokio::test(start_paused = true)]
async fn an_application_is_asked_told_and_handled_once() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["admin1", "dave"]).await;
    assert_eq!(world.join("g", "bob").await.expect("asked").status, "waiting");
    let all = world.delivered().await;
    assert!(seen_by(&all, "alice").contains(&"notice 1".to_owned()));
    assert!(!seen_by(&all, "dave").contains(&"notice 1".to_owned()));
    let list = |who: &str| ApplicationsRequest { app: APP.0, group_id: "g".into(), origin: Some(by(who)) };
    assert_eq!(code(done(world.groups().applications(list("dave")).await)), 10007);
    let open = done(world.groups().applications(list("alice")).await).expect("list").applications;
    assert_eq!((open[0].user.as_str(), open[0].kind.as_str(), open[0].wording.as_str()), ("bob", "join", "let me in"));
    let handle = HandleApplicationRequest {
        app: APP.0,
        group_id: "g".into(),
        id: open[0].id.clone(),
        accept: true,
        reason: String::new(),
        origin: Some(by("alice")),
    };
    done(world.groups().handle_application(handle.clone()).await).expect("handled");
    assert_eq!(code(done(world.groups().handle_application(handle).await)), 10024);
    assert_eq!(world.roles("g", &["bob"]).await, ["Member"]);
    assert!(seen_by(&world.delivered().await, "bob").contains(&"notice 2".to_owned()));
    assert_eq!(log(&world, "g").await, ["tip 1"]);
}

#[tokio::test(start_paused = true)]
async fn adding_answers_for_each_and_fails_only_when_nobody_got_in() {
    let world = World::new(hooked()).await;
    let request = CreateRequest {
        app: APP.0,
        r#type: "Public".into(),
        name: "five".into(),
        owner: "alice".into(),
        group_id: "g".into(),
        max_member_num: 3,
        origin: Some(admin()),
        ..CreateRequest::default()
    };
    done(world.groups().create(request).await).expect("created");
    assert_eq!(world.add("g", &["bob", "ghost", "bob", "alice"], admin()).await, Ok(vec![1, 0, 2, 2]));
    assert_eq!(code(world.add("g", &["ghost"], admin()).await), 10019);
    assert_eq!(world.add("g", &["carol", "dave"], admin()).await, Ok(vec![1, 0]));
    assert_eq!(code(world.add("g", &["dave"], admin()).await), 10014);
    assert_eq!(code(world.add("g", &["dave"], by("alice")).await), 10007, "members may not invite into a Public group");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.hooks.queued("Group.CallbackAfterGroupFull").len(), 1);
    let joins = world.hooks.queued("Group.CallbackAfterNewMemberJoin");
    assert_eq!(joins[0]["JoinType"], "Invited");
    assert_eq!(joins[0]["NewMemberList"], serde_json::json!([{"Member_Account": "bob"}]));
    assert_eq!(joins[0]["Operator_Account"], "admin");
}

#[tokio::test(start_paused = true)]
async fn twenty_joins_at_once_fill_a_group_of_five_and_tell_it_once() {
    let world = World::new(hooked()).await;
    let request = CreateRequest {
        app: APP.0,
        r#type: "Meeting".into(),
        name: "five".into(),
        owner: String::new(),
        group_id: "g".into(),
        max_member_num: 5,
        origin: Some(admin()),
        ..CreateRequest::default()
    };
    done(world.groups().create(request).await).expect("created");
    let names: Vec<String> = (0..20).map(|i| format!("u{i}")).collect();
    let joins = futures::future::join_all(names.iter().map(|user| world.join("g", user))).await;
    assert_eq!(joins.iter().filter(|reply| reply.is_ok()).count(), 5);
    assert!(joins.into_iter().filter_map(Result::err).all(|refusal| refusal.code == 10014));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.hooks.queued("Group.CallbackAfterGroupFull").len(), 1);
    assert_eq!(world.hooks.queued("Group.CallbackAfterNewMemberJoin").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_kicked_user_receives_nothing_after_the_kick() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["bob", "carol"]).await;
    world.send("g", "bob", "before").await.expect("sent");
    world.delivered().await;
    assert_eq!(code(world.kick("g", &["alice"], by("carol")).await), 10007);
    world.kick("g", &["bob", "stranger"], by("alice")).await.expect("kicked");
    world.send("g", "alice", "after").await.expect("sent");
    let all = world.delivered().await;
    let bob = seen_by(&all, "bob");
    assert_eq!(bob, ["kicked [\"bob\"]", "notice 4", "changed left"]);
    assert_eq!(seen_by(&all, "carol"), ["kicked [\"bob\"]", "tip 3", "after"]);
    assert_eq!(code(world.send("g", "bob", "x").await), 10007);
    assert_eq!(log(&world, "g").await, ["before", "tip 3", "after"]);
}

#[tokio::test(start_paused = true)]
async fn owners_leave_work_groups_only() {
    let world = World::new(AppSettings::default()).await;
    let quit = |id: &str, user: &str| {
        let request = QuitRequest { app: APP.0, group_id: id.into(), user: user.into(), origin: Some(by(user)) };
        let mut groups = world.groups();
        async move { done(groups.quit(request).await) }
    };
    world.create("Public", "p", "alice", &["bob"]).await;
    world.create("Work", "w", "alice", &["bob"]).await;
    assert_eq!(code(quit("p", "alice").await), 10009);
    quit("w", "alice").await.expect("left");
    assert_eq!(world.info("w").await.expect("info").owner, "");
    quit("p", "bob").await.expect("left");
    assert_eq!(code(quit("p", "bob").await), 10007);
}

#[tokio::test(start_paused = true)]
async fn roles_change_hands_and_are_told() {
    let mut world = World::new(hooked()).await;
    world.create("Public", "g", "alice", &["bob", "carol"]).await;
    let modify = |user: &str, role: &str, who: &str| {
        let request = ModifyMemberRequest {
            app: APP.0,
            group_id: "g".into(),
            user: user.into(),
            role: Some(role.into()),
            origin: Some(by(who)),
            ..ModifyMemberRequest::default()
        };
        let mut groups = world.groups();
        async move { done(groups.modify_member(request).await) }
    };
    assert_eq!(code(modify("bob", "Admin", "bob").await), 10007);
    modify("bob", "Admin", "alice").await.expect("appointed");
    assert_eq!(world.roles("g", &["bob"]).await, ["Admin"]);
    world.kick("g", &["carol"], by("bob")).await.expect("admins kick members");
    let owner =
        ChangeOwnerRequest { app: APP.0, group_id: "g".into(), new_owner: "bob".into(), origin: Some(by("alice")) };
    done(world.groups().change_owner(owner).await).expect("changed");
    assert_eq!(world.roles("g", &["alice", "bob"]).await, ["Member", "Owner"]);
    let all = world.delivered().await;
    let bob = seen_by(&all, "bob");
    for wanted in ["role bob Admin", "tip 4", "notice 9", "role bob Owner", "role alice Member", "tip 6"] {
        assert!(bob.contains(&wanted.to_owned()), "{wanted}: {bob:?}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = world.hooks.queued("Group.CallbackAfterChangeGroupOwner");
    assert_eq!((&told[0]["OldOwner_Account"], &told[0]["NewOwner_Account"]), (&"alice".into(), &"bob".into()));
    assert_eq!(world.hooks.queued("Group.CallbackAfterMemberFieldChanged")[0]["Role"], "Admin");
}

#[tokio::test(start_paused = true)]
async fn profile_changes_keep_rights_sizes_and_tell_only_what_changed() {
    let world = World::new(AppSettings { group_keys: "k".into(), ..hooked() }).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    let base =
        ModifyRequest { app: APP.0, group_id: "g".into(), origin: Some(by("alice")), ..ModifyRequest::default() };
    let modify = |change: fn(&mut ModifyRequest)| {
        let mut request = base.clone();
        change(&mut request);
        let mut groups = world.groups();
        async move { done(groups.modify(request).await) }
    };
    let as_bob = |r: &mut ModifyRequest| {
        r.name = Some("x".into());
        r.origin = Some(by("bob"));
    };
    assert_eq!(code(modify(as_bob).await), 10007);
    assert_eq!(code(modify(|r| r.introduction = Some("x".repeat(241))).await), 10004);
    assert_eq!(code(modify(|r| r.custom = vec![KeyValue { key: "u".into(), value: "1".into() }]).await), 10004);
    let before = world.info("g").await.expect("info");
    modify(|r| r.name = Some("new".into())).await.expect("changed");
    modify(|r| r.custom = vec![KeyValue { key: "k".into(), value: "1".into() }]).await.expect("changed");
    modify(|r| r.apply_join_option = Some("FreeAccess".into())).await.expect("changed");
    let after = world.info("g").await.expect("info");
    assert_eq!((after.name.as_str(), after.custom[0].key.as_str()), ("new", "k"));
    assert_eq!(after.info_seq, before.info_seq + 3);
    assert_eq!(log(&world, "g").await, ["tip 6", "tip 6"], "options have no tip");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = world.hooks.queued("Group.CallbackAfterGroupInfoChanged");
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["Name"], told[0].get("Introduction")), (&"new".into(), None));
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_group_is_gone_its_id_is_free_and_its_members_know() {
    let mut world = World::new(hooked()).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    let first = world.conv("g").await;
    let destroy = |who: Origin| DestroyRequest { app: APP.0, group_id: "g".into(), origin: Some(who) };
    assert_eq!(code(done(world.groups().destroy(destroy(by("bob"))).await)), 10007);
    world.delivered().await;
    done(world.groups().destroy(destroy(by("alice"))).await).expect("dismissed");
    assert_eq!(code(world.send("g", "alice", "x").await), 10010);
    assert_eq!(code(done(world.groups().destroy(destroy(admin())).await)), 10010);
    let all = world.delivered().await;
    assert_eq!(&seen_by(&all, "bob")[..2], ["notice 5", "dismissed"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = world.hooks.queued("Group.CallbackAfterGroupDestroyed");
    assert_eq!((&told[0]["Owner_Account"], told[0]["MemberList"].as_array().map(Vec::len)), (&"alice".into(), Some(2)));
    let joined = JoinedRequest { app: APP.0, user: "bob".into(), ..JoinedRequest::default() };
    assert_eq!(done(world.groups().joined(joined).await).expect("list").total, 0);
    world.create("Meeting", "g", "carol", &[]).await;
    assert_ne!(world.conv("g").await, first);
}

#[tokio::test(start_paused = true)]
async fn a_work_group_is_hidden_until_its_owner_speaks() {
    let world = World::new(AppSettings::default()).await;
    world.create("Work", "w", "alice", &["bob"]).await;
    let joined = |with_inactive| {
        let request = JoinedRequest { app: APP.0, user: "bob".into(), with_inactive, ..JoinedRequest::default() };
        let mut groups = world.groups();
        async move { done(groups.joined(request).await).expect("list").groups.len() }
    };
    assert_eq!((joined(false).await, joined(true).await), (0, 1));
    world.add("w", &["carol"], by("bob")).await.expect("any member invites");
    assert_eq!(log(&world, "w").await, Vec::<String>::new(), "tips are withheld");
    world.send("w", "alice", "hello").await.expect("sent");
    assert_eq!(joined(false).await, 1);
    world.add("w", &["dave"], by("bob")).await.expect("any member invites");
    assert_eq!(log(&world, "w").await, ["hello", "tip 1"]);
}

#[tokio::test(start_paused = true)]
async fn bans_remove_and_keep_out_until_they_end() {
    let world = World::new(AppSettings::default()).await;
    world.create("Meeting", "g", "alice", &["bob"]).await;
    let ban = BanRequest {
        app: APP.0,
        group_id: "g".into(),
        users: vec!["bob".into()],
        duration_s: 60,
        origin: Some(by("alice")),
        ..BanRequest::default()
    };
    done(world.groups().ban(ban.clone()).await).expect("banned");
    assert_eq!(world.roles("g", &["bob"]).await, ["NotMember"]);
    assert_eq!(code(world.join("g", "bob").await), 10007);
    let list = BannedRequest { app: APP.0, group_id: "g".into(), ..BannedRequest::default() };
    let banned = done(world.groups().banned(list.clone()).await).expect("list").banned;
    assert_eq!((banned[0].user.as_str(), banned[0].until_s), ("bob", T0.secs() + 60));
    world.clock.jump(Duration::from_secs(61));
    assert!(done(world.groups().banned(list).await).expect("list").banned.is_empty());
    assert_eq!(world.join("g", "bob").await.expect("in again").status, "joined");
    done(world.groups().ban(ban).await).expect("banned");
    let unban = UnbanRequest { app: APP.0, group_id: "g".into(), users: vec!["bob".into()], origin: Some(by("alice")) };
    done(world.groups().unban(unban).await).expect("lifted");
    assert!(world.join("g", "bob").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn recalls_keep_to_own_messages_and_are_told() {
    let mut world = World::new(hooked()).await;
    world.create("Public", "g", "alice", &["bob", "carol"]).await;
    for text in ["1", "2"] {
        world.send("g", "bob", text).await.expect("sent");
    }
    world.delivered().await;
    let recall = |seqs: &[u64], who: &str| {
        let request = RecallRequest {
            app: APP.0,
            group_id: "g".into(),
            seqs: seqs.to_vec(),
            reason: String::new(),
            origin: Some(by(who)),
        };
        let mut groups = world.groups();
        async move { done(groups.recall(request).await).map(|reply| reply.codes) }
    };
    assert_eq!(recall(&[1, 9], "carol").await, Ok(vec![10032, 10030]));
    assert_eq!(recall(&[1], "bob").await, Ok(vec![0]));
    assert_eq!(recall(&[2], "alice").await, Ok(vec![0]));
    assert_eq!(code(recall(&[], "alice").await), 10004);
    assert_eq!(seen_by(&world.delivered().await, "carol"), ["revoked [1]", "revoked [2]"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = world.hooks.queued("Group.CallbackAfterRecallMsg");
    assert_eq!(told[0]["MsgSeqList"], serde_json::json!([{"MsgSeq": 1}]));
}

#[tokio::test(start_paused = true)]
async fn read_grants_begin_at_the_join() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "p", "alice", &[]).await;
    world.create("Meeting", "m", "alice", &[]).await;
    world.create("AVChatRoom", "l", "alice", &[]).await;
    for id in ["p", "m"] {
        world.send(id, "alice", "early").await.expect("sent");
        world.add(id, &["bob"], admin()).await.expect("added");
    }
    let ask = |id: &str, user: &str, admin: bool| {
        let request = AuthorizeRequest { app: APP.0, group_id: id.into(), user: user.into(), admin };
        let mut groups = world.groups();
        async move { done(groups.authorize(request).await) }
    };
    assert_eq!(ask("p", "bob", false).await.expect("granted").floor_seq, 1);
    assert_eq!(ask("p", "alice", false).await.expect("granted").floor_seq, 0);
    assert_eq!(ask("m", "bob", false).await.expect("granted").floor_seq, 0);
    assert_eq!(code(ask("p", "carol", false).await), 10007);
    assert_eq!(code(ask("l", "bob", false).await), 10044);
    assert_eq!(code(ask("l", "", true).await), 10007);
    assert!(ask("p", "", true).await.expect("granted").conv > 0);
    let joined = JoinedRequest { app: APP.0, user: "bob".into(), ..JoinedRequest::default() };
    let groups = done(world.groups().joined(joined).await).expect("list").groups;
    let begins: Vec<_> = groups.iter().map(|g| (g.group_id.as_str(), g.floor_seq, g.join_ord, g.join_seq)).collect();
    // A Meeting shows what was before; counting begins at the join all the same (and a Meeting counts nothing).
    assert_eq!(begins, [("p", 1, 1, 1), ("m", 0, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn events_survive_a_callback_service_that_is_down_and_a_restart() {
    let mut world = World::new(hooked()).await;
    world.hooks.down.store(true, Ordering::Relaxed);
    world.create("Meeting", "g", "alice", &[]).await;
    world.join("g", "bob").await.expect("joined");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(world.hooks.queued.lock().is_empty());
    world.start();
    world.hooks.down.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let order: Vec<_> = world.hooks.queued.lock().iter().map(|event| event.command.clone()).collect();
    let seen: Vec<_> = order.iter().map(String::as_str).collect();
    assert_eq!(&seen[..2], ["Group.CallbackAfterCreateGroup", "Group.CallbackAfterNewMemberJoin"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_stores_and_changes_nothing() {
    let mut world = World::new(AppSettings::default()).await;
    world.create("Public", "g", "alice", &["bob"]).await;
    world.send("g", "alice", "one").await.expect("sent");
    let mut old = world.groups();
    world.start();
    world.kick("g", &["bob"], by("alice")).await.expect("the new owner kicks");
    let late = SendRequest {
        app: APP.0,
        group_id: "g".into(),
        message: Some(text_message("bob", "late")),
        origin: Some(by("bob")),
        viewer: false,
        stands_for: 0,
        in_line: None,
    };
    let refused = done(old.send(late).await);
    assert!(refused.is_err(), "{refused:?}");
    assert!(!log(&world, "g").await.contains(&"late".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_community_of_thousands_is_listed_sent_to_and_left_without_walking_it() {
    let world = World::new(AppSettings { group_rate: 0, ..AppSettings::default() }).await;
    world.create("Community", "@TGS#_c", "alice", &[]).await;
    for chunk in 0..4 {
        let names: Vec<String> = (0..300).map(|i| format!("u{chunk}-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let results = world.add("@TGS#_c", &names, admin()).await.expect("added");
        assert!(results.iter().all(|result| *result == 1));
    }
    assert_eq!(world.info("@TGS#_c").await.expect("info").member_num, 1_201);
    let before = log(&world, "@TGS#_c").await.len();
    assert_eq!(world.send("@TGS#_c", "u1-7", "hi").await.expect("sent").seq, before as u64 + 1);
    assert_eq!(code(world.send("@TGS#_c", "stranger", "hi").await), 10007);
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let request = MembersRequest {
            app: APP.0,
            group_id: "@TGS#_c".into(),
            limit: 500,
            cursor,
            origin: Some(admin()),
            ..MembersRequest::default()
        };
        let page = done(world.groups().members(request).await).expect("page");
        seen.extend(page.members.into_iter().map(|member| member.user));
        cursor = page.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 1_201);
    let quit = QuitRequest { app: APP.0, group_id: "@TGS#_c".into(), user: "u0-0".into(), origin: Some(by("u0-0")) };
    done(world.groups().quit(quit).await).expect("left");
    assert_eq!(world.info("@TGS#_c").await.expect("info").member_num, 1_200);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_account_leaves_everything() {
    let world = World::new(AppSettings::default()).await;
    world.create("Public", "p", "alice", &["bob"]).await;
    world.create("Meeting", "m", "bob", &["alice"]).await;
    done(world.groups().forget(ForgetRequest { app: APP.0, user: "bob".into() }).await).expect("forgotten");
    assert_eq!(world.roles("p", &["bob"]).await, ["NotMember"]);
    assert_eq!(world.info("m").await.expect("info").owner, "");
    let joined = JoinedRequest { app: APP.0, user: "bob".into(), ..JoinedRequest::default() };
    assert_eq!(done(world.groups().joined(joined).await).expect("list").total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_outgrows_delivery_by_name_goes_both_ways_for_a_while() {
    let mut world = World::new(AppSettings { small_group: 3, ..AppSettings::default() }).await;
    world.create("Meeting", "g", "alice", &["bob", "carol"]).await;
    let conv = world.conv("g").await;
    let mut fan = world.watch(conv).await;
    world.send("g", "alice", "small").await.expect("sent");
    assert!(drain(&mut fan).await.is_empty());
    assert_eq!(seen_by(&world.delivered().await, "bob").last().map(String::as_str), Some("small"));
    world.join("g", "dave").await.expect("joined");
    world.send("g", "alice", "crossing").await.expect("sent");
    let words: Vec<String> = drain(&mut fan).await.iter().map(word).collect();
    assert_eq!(words, ["joined [\"dave\"]", "crossing"]);
    assert_eq!(seen_by(&world.delivered().await, "bob").last().map(String::as_str), Some("crossing"));
    tokio::time::sleep(Duration::from_secs(31)).await;
    world.send("g", "alice", "large").await.expect("sent");
    assert_eq!(drain(&mut fan).await.iter().map(word).collect::<Vec<_>>(), ["large"]);
    assert!(!seen_by(&world.delivered().await, "bob").contains(&"large".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn memberships_of_a_community_are_told_one_by_one_and_of_a_group_together() {
    let world = World::new(hooked()).await;
    world.create("Community", "@TGS#_c", "alice", &[]).await;
    world.create("Public", "g", "alice", &[]).await;
    for id in ["@TGS#_c", "g"] {
        world.add(id, &["a", "b", "c"], admin()).await.expect("added");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = world.hooks.queued("Group.CallbackAfterNewMemberJoin");
    let of = |id: &str| told.iter().filter(|body| body["GroupId"] == id).count();
    assert_eq!((of("@TGS#_c"), of("g")), (3, 1));
}
