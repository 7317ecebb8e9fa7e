use std::fs::File;
use std::io::{PipeReader, Read};

use super::*;

fn line(number: usize) -> String {
    format!("line {number} {}\n", "x".repeat(100))
}

/// Reads everything, while what waits is written.
fn read(output: Output<std::io::PipeWriter>, mut reader: PipeReader) -> String {
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    output.drain(Duration::from_secs(60));
    drop(output);
    reading.join().unwrap()
}

#[test]
fn lines_are_written_at_once_where_there_is_room() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let output = Output::new(writer);
    assert_eq!(output.write(b"one\n"), Written::default());
    let mut read = [0; 16];
    assert_eq!(reader.read(&mut read).unwrap(), 4);
    assert!(!output.retry());
}

#[test]
fn a_full_pipe_is_not_waited_for_and_gets_everything_later_in_order() {
    let (reader, writer) = std::io::pipe().unwrap();
    let output = Output::new(writer);
    let began: Vec<usize> =
        (0..2000).filter(|number| output.write(line(*number).as_bytes()).begins_to_wait).collect();
    assert_eq!(began.len(), 1, "the maintenance is woken once: {began:?}");
    assert!(output.retry(), "nobody has read");
    assert_eq!(output.take_lost(), None);
    let expected: String = (0..2000).map(line).collect();
    assert_eq!(read(output, reader), expected);
}

#[test]
fn whole_lines_are_lost_beyond_the_bound_and_counted_once_there_is_room() {
    let (reader, writer) = std::io::pipe().unwrap();
    let output = Output::new(writer);
    let lost = (0..20_000).filter(|number| output.write(line(*number).as_bytes()).is_lost).count();
    assert!(lost > 5_000, "{lost}");
    assert!(output.waiting().bytes.len() <= MAX_WAITING);
    assert_eq!(output.take_lost(), None, "there is no room for saying so");
    let text = read(output, reader);
    let expected: String = (0..20_000 - lost).map(line).collect();
    assert_eq!(text, expected);
}

#[test]
fn the_number_of_lost_lines_is_taken_once() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let output = Output::new(writer);
    let long = vec![b'x'; MAX_WAITING + 1];
    // The first line fills the pipe, so what follows it waits or is lost.
    assert!(output.write(&long).begins_to_wait);
    assert!(output.write(&long).is_lost && output.write(&long).is_lost);
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; MAX_WAITING + 1];
        reader.read_exact(&mut bytes).unwrap();
        reader
    });
    output.drain(Duration::from_secs(60));
    let _reader = reading.join().unwrap();
    assert_eq!((output.take_lost(), output.take_lost()), (Some(2), None));
    assert_eq!(output.write(b"short\n"), Written::default());
}

#[test]
fn a_full_disk_takes_what_waits_once_it_has_space() {
    let output = Output::new(File::options().write(true).open("/dev/full").unwrap());
    assert!(output.write(b"one\n").begins_to_wait);
    assert_eq!(output.write(b"two\n"), Written::default());
    assert!(output.retry());
    let waiting = output.waiting().bytes.clone();
    assert_eq!(waiting, b"one\ntwo\n");
    // The end of the process does not wait for the disk longer than it says.
    output.drain(Duration::from_millis(1));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Output::new(writer);
    assert!(output.write(b"one\n").begins_to_wait);
    assert!(output.retry());
}
