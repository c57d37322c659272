//! The coordinator dies mid-rollout: everything goes on from the store.

use super::*;

#[tokio::test]
async fn a_rollout_goes_on_after_the_coordinator_died() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&["1", "100%"]).await.unwrap().row.id;
    let order = one.order().await;
    one.accept(&order).await;
    drop(one);

    let fixture = fixture.restarted().await;
    assert_eq!(fixture.states(&id).await, ["running", "pending"]);
    let mut one = fixture.connect("web-1").await.knowing(&order, 1);
    one.expect_nothing();
    let mut two = fixture.connect("web-2").await;
    one.end(&order, succeeded()).await;
    let order = two.order().await;
    two.accept(&order).await;
    two.end(&order, succeeded()).await;
    assert_eq!(fixture.controller.show_exactly(&id).await.unwrap().exit_code(), 0);
}

#[tokio::test]
async fn an_order_that_was_not_answered_is_sent_again_and_is_the_same() {
    let fixture = Fixture::new(&["web-1"]).await;
    let mut one = fixture.connect("web-1").await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let sent = one.order().await;
    drop(one);

    let fixture = fixture.restarted().await;
    assert_eq!(fixture.states(&id).await, ["ordered"]);
    let mut one = fixture.connect("web-1").await;
    assert_eq!(one.order().await, sent, "same id, same content: the agent knows it");
    one.accept(&sent).await;
    let mut again = fixture.connect("web-1").await;
    again.expect_nothing();
}

#[tokio::test]
async fn a_server_whose_turn_came_before_the_crash_is_looked_for_again() {
    let fixture = Fixture::new(&["web-1"]).await;
    let id = fixture.start(&[]).await.unwrap().row.id;
    let fixture = fixture.restarted().await;
    fixture.until(&id, |shown| shown.row.is_ended()).await;
    assert_eq!(fixture.states(&id).await, ["offline"]);
}

#[tokio::test]
async fn who_has_not_come_back_to_a_new_process_yet_is_waited_for_longer() {
    let fixture = Fixture::new(&["web-1", "web-2"]).await;
    let mut one = fixture.connect("web-1").await;
    let two = fixture.connect("web-2").await;
    fixture.start(&["1", "2"]).await.unwrap();
    let first = one.order().await;
    one.accept(&first).await;
    drop((one, two));

    // Agents that were refused for a while come back late.
    let fixture = fixture.restarted().await;
    let mut one = fixture.connect("web-1").await.knowing(&first, 1);
    one.end(&first, succeeded()).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut two = fixture.connect("web-2").await;
    assert_eq!(two.order().await.rollout, first.rollout);
}
