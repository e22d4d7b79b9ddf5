use super::*;

async fn two_messages() -> (Setup, Spool, Mailbox, Identity, Vec<Entry>) {
    let setup = Setup::new();
    let (mailbox, identity) = setup.mailbox();
    let (spool, _) = setup.open();
    let content = vec![b'y'; 200_000];
    let entries = vec![accept(&spool, &mailbox, &content).await, accept(&spool, &mailbox, b"second\r\n").await];
    (setup, spool, mailbox, identity, entries)
}

#[tokio::test]
async fn a_damaged_file_never_comes_out_whole() {
    let (setup, spool, mailbox, identity, entries) = two_messages().await;
    let path = setup.message(&mailbox, Folder::New, entries[0].body.uidl);
    let whole = std::fs::read(&path).expect("reads");
    let len = whole.len();
    let mut changes: Vec<Vec<u8>> = [0, 10, 60, 120, 200, len / 2, len - 1]
        .iter()
        .map(|at| {
            let mut changed = whole.clone();
            changed[*at] ^= 1;
            changed
        })
        .collect();
    changes.extend([0, 1, 100, 300, len / 2, len - 1].iter().map(|cut| whole[..*cut].to_vec()));
    changes.push([whole.as_slice(), b"x"].concat());
    let maildrop = spool.open_session(&mailbox).expect("opens");
    for (i, changed) in changes.iter().enumerate() {
        std::fs::write(&path, changed).expect("writes");
        let mut out = Vec::new();
        let result = maildrop.open(0, &identity).map(|mut reader| reader.read_to_end(&mut out));
        assert!(!matches!(result, Ok(Ok(_))), "change {i}");
        assert!((out.len() as u64) < entries[0].xretr_size(), "change {i} gave all octets");
    }
    std::fs::write(&path, &whole).expect("writes");
    assert!(read(&maildrop, 0, &identity).is_ok());
    std::fs::remove_file(&path).expect("removes");
    assert!(matches!(maildrop.open(0, &identity), Err(SpoolError::Missing { .. })));
    assert!(read(&maildrop, 1, &identity).is_ok());
}

#[tokio::test]
async fn a_file_under_another_name_is_noticed() {
    let (setup, spool, mailbox, identity, entries) = two_messages().await;
    let (first, second) = (
        setup.message(&mailbox, Folder::New, entries[0].body.uidl),
        setup.message(&mailbox, Folder::New, entries[1].body.uidl),
    );
    std::fs::copy(&second, &first).expect("copies");
    let maildrop = spool.open_session(&mailbox).expect("opens");
    let error = maildrop.open(0, &identity).err().expect("another message");
    assert!(matches!(error, SpoolError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_message_sealed_by_somebody_else_is_noticed() {
    let (setup, spool, mailbox, identity, entries) = two_messages().await;
    let maildrop = spool.open_session(&mailbox).expect("opens");
    let path = setup.message(&mailbox, Folder::New, entries[1].body.uidl);
    // Whoever can write files knows the recipient; only octets the gateway never saw can be sealed with it.
    let file = std::fs::read(&path).expect("reads");
    let reader = age::Decryptor::new_buffered(file.as_slice()).expect("age file");
    let mut plain = Vec::new();
    reader.decrypt(identity.age()).expect("key").read_to_end(&mut plain).expect("reads");
    let at = plain.len() - 3;
    plain[at] ^= 1;
    let recipient: age::x25519::Recipient = mailbox.recipient.parse().expect("recipient");
    std::fs::write(&path, age::encrypt(&recipient, &plain).expect("seals")).expect("writes");
    assert!(read(&maildrop, 1, &identity).is_err());
}
