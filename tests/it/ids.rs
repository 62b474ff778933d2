//! Names of containers, through the command.

use crate::support::Place;

#[test]
fn names_that_could_not_be_a_directorys_are_refused_before_anything_is_looked_at() {
    let place = Place::new();
    let long = "a".repeat(256);
    for id in ["../x", "/", "a/b", ".", "..", "a b", "a\nb", "ä", "a:b", "*", &long] {
        for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
            let ran = place.husk(&[verb, "--", id]);
            assert_eq!(ran.code, 1, "{verb} {id:?}: {}", ran.err);
            assert_eq!(ran.message(), "invalid container ID format", "{verb} {id:?}");
        }
    }
    assert!(place.left().is_empty());
}

#[test]
fn an_empty_name_is_told_apart() {
    let place = Place::new();
    assert_eq!(place.husk(&["state", ""]).message(), "container id cannot be empty");
}

#[test]
fn names_of_letters_digits_and_a_few_signs_are_looked_up() {
    let place = Place::new();
    let longest = "a".repeat(255);
    for id in ["a", "A.b_c+d-e", "0", "...", ".hidden", &longest] {
        let ran = place.husk(&["state", id]);
        assert_eq!((ran.code, ran.message().as_str()), (1, "container does not exist"), "{id:?}");
    }
}

#[test]
fn a_name_with_a_dash_in_front_is_an_option_unless_the_options_have_ended() {
    let place = Place::new();
    assert_eq!(place.husk(&["state", "-x"]).message(), "flag provided but not defined: -x");
    assert_eq!(place.husk(&["state", "--", "-x"]).message(), "container does not exist");
}
