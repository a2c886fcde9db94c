"""Drives the unmodified PyPI package timsdk through everything it wraps of what is served.

    timsdk_drive.py SDKAPPID KEY

The package has the vendor's host built in; `tests/it/third_party.rs` says through HTTPS_PROXY where that is. Prints `done`
at the end; whatever differs from the documents ends it with the call and its answer.
"""

import sys
import time

from timsdk import TimClient

client = TimClient(int(sys.argv[1]), sys.argv[2])
accounts, profiles = client.im_open_login_svc, client.profile
messages, groups = client.open_im, client.group_open_http_svc


def answered(reply, fields=(), code=0, status=None):
    """The reply, checked: its outcome, the types of the envelope, and the types of `fields`."""
    assert reply["ErrorCode"] == code, reply
    assert reply["ActionStatus"] == (status or ("OK" if code == 0 else "FAIL")), reply
    assert isinstance(reply["ErrorInfo"], str) and (code == 0) == (reply["ErrorInfo"] == ""), reply
    for name, kind in fields:
        assert type(reply[name]) is kind, (name, reply)
    return reply


def by(items, key):
    return {item[key]: item for item in items}


def accounts_and_profiles():
    answered(accounts.account_import("ann", "Ann 安", "https://example.com/a.png"))
    answered(accounts.account_import("ben"))
    answered(accounts.im_open_login_svc(["cat", "dan"]))
    answered(accounts.account_import("x" * 33), code=70402)
    # This one is a GET with a body.
    found = answered(accounts.account_check(["ann", "nobody"]), [("ResultItem", list)])["ResultItem"]
    assert [one["AccountStatus"] for one in found] == ["Imported", "NotImported"], found
    assert all(one["ResultCode"] == 0 for one in found), found
    answered(accounts.kick("dan"))
    answered(accounts.kick("nobody"), code=70107)
    state = answered(messages.query_state(["ann", "nobody"]))
    assert state["QueryResult"] == [{"To_Account": "ann", "Status": "Offline", "State": "Offline"}], state
    assert state["ErrorList"] == [{"To_Account": "nobody", "ErrorCode": 70107}], state

    answered(profiles.portrait_set("ann", [
        {"Tag": "Tag_Profile_IM_Nick", "Value": "Anna"},
        {"Tag": "Tag_Profile_IM_BirthDay", "Value": 20190419},
    ]), [("ErrorDisplay", str)])
    answered(profiles.portrait_set("ann", [{"Tag": "Tag_Profile_IM_Nick", "Value": 5}]), code=40610)
    shown = answered(profiles.portrait_get(["ann", "nobody"]), [("UserProfileItem", list)])
    users = by(shown["UserProfileItem"], "To_Account")
    tags = {item["Tag"]: item["Value"] for item in users["ann"]["ProfileItem"]}
    assert (tags["Tag_Profile_IM_Nick"], tags["Tag_Profile_IM_BirthDay"]) == ("Anna", 20190419), tags
    assert users["nobody"]["ResultCode"] == 40003 and shown["Fail_Account"] == ["nobody"], shown


def one_to_one():
    sent = answered(messages.send_text_msg("ben", "hello 你好", "ann"), [("MsgTime", int), ("MsgKey", str), ("MsgId", str)])
    assert abs(sent["MsgTime"] - time.time()) < 60 and len(sent["MsgKey"].split("_")) == 3, sent
    answered(messages.send_text_msg("nobody", "hello", "ann"), code=90012)
    answered(messages.send_text_msg("ben", "hello", "nobody"), code=20003)
    answered(messages.send_text_msg("ben", "x" * 12_288, "ann"), code=93000)
    answered(messages.batch_send_text_msg(["ben", "cat"], "all", "ann"), [("MsgKey", str)])
    partly = answered(messages.batch_send_text_msg(["ben", "nobody"], "some", "ann"), status="SomeError")
    assert partly["ErrorList"] == [{"To_Account": "nobody", "ErrorCode": 70107}], partly
    answered(messages.batch_send_text_msg(["nobody"], "none", "ann"), code=90012)
    answered(messages.batch_send_text_msg(["ben"] * 501, "many", "ann"), code=90011)
    answered(messages.admin_msg_withdraw("ben", "ann", sent["MsgKey"]))
    answered(messages.admin_msg_withdraw("ben", "ann", sent["MsgKey"]), code=20023)
    answered(messages.admin_msg_withdraw("ben", "ann", "1_2_3"), code=20022)
    answered(messages.admin_msg_withdraw("ben", "nobody", "1_2_3"), code=90008)


def group_and_members():
    first = [{"Member_Account": "ben", "Role": "Admin"}]
    group = answered(groups.create_group("club", "ann", first, introduction="i", max_member_count=100))["GroupId"]
    assert group.startswith("@TGS#"), group
    # A GET without any body, which is refused like a POST without one.
    answered(groups.get_app_id_group_list(), code=60003)
    infos = by(answered(groups.get_group_info([group, "nowhere"]))["GroupInfo"], "GroupId")
    assert infos["nowhere"]["ErrorCode"] == 10010, infos
    info = infos[group]
    numbers = ["Appid", "CreateTime", "LastInfoTime", "LastMsgTime", "NextMsgSeq", "MemberNum", "MaxMemberNum"]
    assert all(type(info[name]) is int for name in numbers), info
    assert (info["Type"], info["Owner_Account"], info["MaxMemberNum"]) == ("Public", "ann", 100), info
    assert info["MuteAllMember"] == info["ShutUpAllMember"] == "Off", info
    assert {one["Member_Account"]: one["Role"] for one in info["MemberList"]} == {"ann": "Owner", "ben": "Admin"}, info
    picked = {"GroupBaseInfoFilter": ["Name"], "MemberInfoFilter": ["Role"]}
    info = answered(groups.get_group_info([group], picked))["GroupInfo"][0]
    assert set(info) == {"GroupId", "ErrorCode", "ErrorInfo", "Name", "MemberList"}, info

    answered(groups.modify_group_base_info(group, name="new", apply_join_option="FreeAccess", shut_up_all_member="On"))
    answered(groups.modify_group_base_info(group, shut_up_all_member="Off"))
    added = answered(groups.add_group_member(group, [{"Member_Account": id} for id in ("cat", "ben", "nobody")]))
    assert {one["Member_Account"]: one["Result"] for one in added["MemberList"]} == {"cat": 1, "ben": 2, "nobody": 0}
    page = answered(groups.get_group_member_info(group, limit=2, offset=1), [("MemberNum", int)])
    assert page["MemberNum"] == 3 and len(page["MemberList"]) == 2, page
    card = {"role": "Admin", "msg_flag": "Discard", "name_card": "card", "shut_up_time": 100}
    answered(groups.modify_group_member_info(group, "cat", **card))
    cat = by(answered(groups.get_group_member_info(group))["MemberList"], "Member_Account")["cat"]
    assert (cat["Role"], cat["MsgFlag"], cat["NameCard"]) == ("Admin", "Discard", "card"), cat
    assert cat["ShutUpUntil"] == cat["MuteUntil"] > time.time(), cat
    joined = answered(groups.get_joined_group_list("cat"), [("TotalCount", int)])
    assert joined["GroupIdList"] == [{"GroupId": group}], joined
    wanted = {"GroupBaseInfoFilter": ["Type", "Name"], "SelfInfoFilter": ["Role"]}
    joined = answered(groups.get_joined_group_list("cat", limit=1, group_type="Public", response_filter=wanted))
    assert joined["GroupIdList"] == [
        {"GroupId": group, "Type": "Public", "Name": "new", "SelfInfo": {"Role": "Admin"}}
    ], joined
    roles = answered(groups.get_role_in_group(group, ["ann", "cat", "nobody"]))["UserIdList"]
    assert [one["Role"] for one in roles] == ["Owner", "Admin", "NotMember"], roles
    answered(groups.forbid_send_msg(group, ["ben", "dan"], 600))
    muted = by(answered(groups.get_group_shut_uin(group))["ShuttedUinList"], "Member_Account")
    assert set(muted) == {"ben", "cat", "dan"} and all(type(one["ShuttedUntil"]) is int for one in muted.values()), muted
    answered(groups.forbid_send_msg(group, ["ben", "cat", "dan"]))
    assert answered(groups.get_group_shut_uin(group))["ShuttedUinList"] == []
    return group


def group_messages(group):
    body = [
        {"MsgType": "TIMTextElem", "MsgContent": {"Text": "red packet"}},
        {"MsgType": "TIMFaceElem", "MsgContent": {"Index": 6, "Data": "abc\u0000\u0001"}},
    ]
    fields = [("MsgTime", int), ("MsgSeq", int), ("MsgDropReason", str)]
    first = answered(groups.send_group_msg(group, body), fields)
    again = answered(groups.send_group_msg(group, body), fields)
    assert again["MsgSeq"] == first["MsgSeq"], "the package sends one Random all its life: a repeated body is a repeat"
    second = answered(groups.send_group_msg(group, body[:1]), fields)
    assert second["MsgSeq"] == first["MsgSeq"] + 1, (first, second)
    answered(groups.send_group_msg(group, [{"MsgType": "TIMTextElem", "MsgContent": {"Text": "x" * 12_288}}]), code=80002)
    answered(groups.send_group_system_notification(group, "notice"))
    history = answered(groups.group_msg_get_simple(group, 20), [("IsFinished", int), ("GroupId", str)])["RspMsgList"]
    assert [one["MsgSeq"] for one in history[:2]] == [second["MsgSeq"], first["MsgSeq"]], history
    assert history[1]["MsgBody"] == body and history[1]["IsPlaceMsg"] == 0, history[1]
    recalled = answered(groups.group_msg_recall(group, [{"MsgSeq": first["MsgSeq"]}, {"MsgSeq": 99_999}]))["RecallRetList"]
    assert [one["RetCode"] for one in recalled] == [0, 10030], recalled
    rest = answered(groups.group_msg_get_simple(group, 1, first["MsgSeq"]))["RspMsgList"]
    assert rest[0]["MsgSeq"] < first["MsgSeq"], rest
    answered(groups.set_unread_msg_num(group, "ben", 1))


def leaving(group):
    answered(groups.change_group_owner(group, "cat"))
    answered(groups.delete_group_member(group, ["ben", "nobody"], reason="r"))
    assert answered(groups.get_role_in_group(group, ["cat", "ben"]))["UserIdList"] == [
        {"Member_Account": "cat", "Role": "Owner"},
        {"Member_Account": "ben", "Role": "NotMember"},
    ]
    answered(groups.destroy_group(group))
    answered(groups.destroy_group(group), code=10010)
    deleted = answered(accounts.account_delete(["dan", "nobody"]))["ResultItem"]
    assert [one["ResultCode"] for one in deleted] == [0, 70107], deleted
    assert deleted[1]["ResultInfo"] == "Err_TLS_PT_Open_Login_Account_Not_Exist", deleted
    answered(accounts.account_import("dan"))


accounts_and_profiles()
one_to_one()
club = group_and_members()
group_messages(club)
leaving(club)
print("done")
