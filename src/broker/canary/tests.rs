use super::*;

#[test]
fn states_convert_to_numbers_and_back() {
    for state in [
        State::Unsent,
        State::Received,
        State::Lost,
        State::PublishFailed,
        State::PublishRefused,
        State::SubscribeRefused,
    ] {
        assert_eq!(State::from_u8(state as u8), state);
        assert_eq!(state.check().is_ok(), state == State::Received);
    }
}

#[test]
fn only_its_own_channel_is_accepted() {
    let canary = Canary::new(ChannelName::new("tg:control:1:canary").unwrap());
    assert!(canary.accept(canary.channel().as_bytes(), b"7"));
    assert_eq!(*canary.0.received.borrow(), 7);
    assert!(canary.accept(canary.channel().as_bytes(), b"not a number"));
    assert!(!canary.accept(b"chat_42", b"8"));
    assert_eq!(*canary.0.received.borrow(), 7);
}
