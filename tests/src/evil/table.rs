//! `docs/attacks.md`: every attack, what is sent, what comes of it, and the test that shows it.

use super::{
    agent,
    coordinator::{Group, Outcome, attacks},
};

pub fn table() -> String {
    let mut text = HEAD.to_owned();
    for group in Group::ALL {
        text.push_str(&format!("\n### {}\n\nTest: `{}`\n\n", group.title(), group.test()));
        text.push_str("| attack | what is sent | what comes of it |\n|---|---|---|\n");
        for attack in attacks().into_iter().filter(|attack| attack.group == group) {
            let name = attack.name;
            text.push_str(&format!("| `{name}` | {} | {} |\n", attack.sends, words(attack.outcome)));
        }
    }
    text.push_str(NOT_APPLICABLE);
    text.push_str(AGENT);
    for attack in agent::ATTACKS {
        let agent::Attack { name, sends, comes, .. } = attack;
        text.push_str(&format!("| `{name}` | {sends} | {comes} |\n"));
    }
    text.push_str(ELSEWHERE);
    text
}

fn words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(code) => format!("refused: `{code}`"),
        Outcome::Answered(code) => format!("refused: `{code}`; nothing of it is kept"),
        Outcome::Dropped => "dropped, with a line in the agent's log".into(),
        Outcome::Nothing => "nothing".into(),
        Outcome::SessionEnds => "the agent ends the session, and comes back".into(),
        Outcome::NoSession => "the agent does not talk to it".into(),
        Outcome::RootRefused(_) => "the trust root is refused, the one before stays in force".into(),
        Outcome::Ends(how) => format!("the deployment ends as `{how}`, nothing of it is active"),
        Outcome::Remains(how) => how.into(),
    }
}

const HEAD: &str = "# Attacks

Tried with every build, and what came of them. This page is what `evil-coordinator table` prints; a test compares the two.

`evil-coordinator` (in `tests/`) is a coordinator with every key that a coordinator has. It speaks to a real agent process over
real TLS, on a server in an environment whose gate asks for approvals by two product owners, a passed test by QA, after a
failure the word of a release manager, and keeps publishers apart. `evil-coordinator list` shows the attacks, `evil-coordinator
run NAME` plays one. Unless the row says otherwise: nothing executes; `current`, releases and trust root stay as they are; the
refusal has this name in the agent's journal and in its report to the coordinator; and the next honest order works.

Names begin with the number of the attack in the threat model, where it has one.

## A hostile coordinator
";

const NOT_APPLICABLE: &str = "
### Not tried, because there is nothing to attack

| number | why |
|---|---|
| A18, the welcome | nothing in the welcome names an environment; the order does, and is refused |
| A27 window too long | an approval says itself until when it counts; there is no other window |
| A35 freshness withheld | agents hold no document of freshness; what withholding comes to is `remains-root-freeze`, and ends with the trust root's expiry |
| A37 self-update | an agent does not update itself, and no order says so |
| a false page shown to a person | it is not the agent that is deceived: `what_a_coordinator_that_lies_says_is_not_signed` shows what the CLI signs after it |
";

const AGENT: &str = "
## A hostile agent

`evil-agent` has one server's certificate and key, and speaks to a real `consign serve`. Beside it a real agent of another server
stays connected, the operator is served, and the coordinator's memory stays below 256 MiB.

Test: `evil::a_stolen_server`

| attack | what is sent | what comes of it |
|---|---|---|
";

const ELSEWHERE: &str = "
### Shown by tests that were there already

| number | what is tried | test |
|---|---|---|
| A47 | self-signed, other CA, expired, the coordinator's certificate as a client's, an agent's as a server's | `a_self_signed_client_is_refused`, `a_client_of_another_ca_is_refused`, `an_expired_client_comes_in_and_is_seen_to_be_expired`, `the_coordinators_certificate_is_no_clients`, `an_agents_certificate_is_no_servers` |
| A47 | a removed server's session and its other streams | `a_removed_servers_session_and_its_other_streams_end_within_a_second` |
| A48 | every method by every role | `every_method_lets_in_exactly_the_roles_of_its_row`, `every_method_of_the_descriptor_has_exactly_one_row` |
| A49 | half-open handshakes | `one_address_leaves_room_for_others_and_gets_its_places_back` |
| A52 | a token used twice, a hundred times at once, late, for another name or environment, with another secret | `of_a_hundred_who_use_a_token_at_once_one_gets_in`, `a_token_is_worth_what_it_was_made_for`, `a_token_works_once_in_its_time_for_its_name` |
| A54 | a certificate request that asks for more than its key | `a_certificate_takes_nothing_but_the_key_from_a_request`, `a_request_with_another_kind_of_key_or_a_broken_signature_is_refused` |
| A55 | two agents with one key | `t8_a_cloned_server_is_quarantined`, `a_second_agent_beside_a_living_one_shuts_both_out` |
| A56, A57 | another server's order, events out of order, twice, after a gap | `no_agent_touches_what_is_another_ones`, `events_are_taken_once_and_in_order` |
| A58 | logs beyond their quota, records that overlap, of another server | `beyond_its_quota_a_log_is_acknowledged_and_not_kept`, `a_log_takes_each_byte_once_and_only_whole_records_of_its_own_server` |
";
