use super::*;

fn answer(port: u16, epoch: u64) -> Answer {
    Answer { host: "h".to_owned(), port, epoch }
}

#[test]
fn the_newest_answer_counts_and_older_ones_only_of_most() {
    let (old, new) = (answer(1, 4), answer(2, 5));
    let one = |answers: &[Answer], known| choose(answers, known, 3).cloned();
    assert_eq!(one(&[], None), None);
    assert_eq!(one(&[old.clone(), new.clone()], None), Some(new.clone()));
    assert_eq!(one(&[new.clone(), old.clone()], Some(&old)), Some(new.clone()));
    // One that has slept, alone or beside another.
    assert_eq!(one(std::slice::from_ref(&old), Some(&new)), None);
    assert_eq!(one(&[old.clone(), answer(3, 3)], Some(&new)), None);
    assert_eq!(one(&[old.clone(), new.clone()], Some(&new)), Some(new.clone()));
    // Set up anew.
    let anew = answer(3, 0);
    assert_eq!(one(&[anew.clone(), anew.clone()], Some(&new)), Some(anew.clone()));
    assert_eq!(choose(std::slice::from_ref(&anew), Some(&new), 1), Some(&anew), "the only one");
    // Before the first failover all have the same epoch.
    let (first, other) = (answer(1, 0), answer(2, 0));
    assert_eq!(one(&[first.clone(), other.clone()], Some(&first)), Some(first.clone()));
    assert_eq!(one(&[other.clone(), first.clone()], Some(&first)), Some(first));
}

#[test]
fn an_answer_without_an_address_is_none() {
    let fields = |more: &[(&str, &str)]| {
        let all = [("ip", "h"), ("port", "6379"), ("config-epoch", "7"), ("flags", "master")];
        let all = all.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into()));
        all.collect::<HashMap<String, String>>()
    };
    assert_eq!(read(&fields(&[])), Some(answer(6379, 7)));
    for wrong in [("ip", ""), ("port", "0"), ("port", "70000"), ("port", "x"), ("config-epoch", "")]
    {
        assert_eq!(read(&fields(&[wrong])), None, "{wrong:?}");
    }
    assert_eq!(read(&HashMap::new()), None);
}
