label_enum! {
    enum Cause {
        Expired => "expired",
        Unknown => "unknown",
    }
}

label_enum! {
    enum Outcome {
        Accepted => "accepted";
        Refused(Cause),
    }
}

#[test]
fn an_enum_speaks_with_its_own_words_and_those_of_the_enum_that_it_holds() {
    assert_eq!(Cause::LABELS, ["expired", "unknown"]);
    assert_eq!(Outcome::LABELS, ["accepted", "expired", "unknown"]);
    assert_eq!(Outcome::from_label("other"), None);
    assert_eq!(Outcome::ALL[2], Outcome::Refused(Cause::Unknown));
    for (value, label) in Outcome::ALL.iter().zip(Outcome::LABELS) {
        assert_eq!((value.label(), value.to_string().as_str()), (*label, *label));
        assert_eq!(Outcome::from_label(label), Some(*value));
        assert_eq!(serde_json::to_value(value).unwrap(), *label);
    }
}
