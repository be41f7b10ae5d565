use super::*;

#[test]
fn the_version_before_another() {
    assert_eq!(before(Version::new(3, 4)), Some(Version::new(3, 3)));
    assert_eq!(before(Version::new(3, 0)), Some(Version::new(2, u16::MAX)));
    assert_eq!(before(Version::ZERO), None);
    for version in [Version::new(3, 4), Version::new(3, 0), Version::MAX] {
        assert_eq!(before(version).and_then(Version::next), Some(version));
    }
}

#[test]
fn a_client_needs_an_address() {
    let options = ClientOptions::default();
    let deadline = options.env.deadline(std::time::Duration::from_secs(1));
    let error = Client::connect(Vec::new(), options, deadline).unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error}");
}
