//! Each cipher against a published keypair, against damage, and against the other.

use super::*;

/// Bob's keys of RFC 7748 (IETF) section 6.1, also those of the NaCl distribution's box test.
const BOB_SECRET: [u8; 32] = [
    0x5d, 0xab, 0x08, 0x7e, 0x62, 0x4a, 0x8a, 0x4b, 0x79, 0xe1, 0x7f, 0x8b, 0x83, 0x80, 0x0e, 0xe6, 0x6f,
    0x3b, 0xb1, 0x29, 0x26, 0x18, 0xb6, 0xfd, 0x1c, 0x2f, 0x8b, 0x27, 0xff, 0x88, 0xe0, 0xeb,
];
const BOB_PUBLIC: [u8; 32] = [
    0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4, 0x35, 0x37, 0x3f,
    0x83, 0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f,
];
const ALICE_SECRET: [u8; 32] = [0x77; 32];

fn check<C: BoxCipher>() {
    assert_eq!(C::public_key(&BOB_SECRET), BOB_PUBLIC);
    let alice = C::new(&BOB_PUBLIC, &ALICE_SECRET).ok().unwrap();
    let bob = C::new(&C::public_key(&ALICE_SECRET), &BOB_SECRET).ok().unwrap();
    let nonce = [7u8; NONCE_BYTES];
    for length in [0, 1, 31, 32, 33, 200, 4096, 70_001] {
        let plain: Vec<u8> = (0..=250u8).cycle().take(length).collect();
        let mut sealed = plain.clone();
        let tag = alice.seal_in_place(&nonce, &mut sealed);
        let mut copy = vec![0u8; length];
        bob.open_into(&nonce, &tag, &sealed, &mut copy).unwrap();
        assert_eq!(copy, plain);
        let mut bad_tag = tag;
        bad_tag[15] ^= 1;
        assert_eq!(
            bob.open_in_place(&nonce, &bad_tag, &mut sealed.clone()),
            Err(BadBox)
        );
        if length > 0 {
            let mut damaged = sealed.clone();
            damaged[length / 2] ^= 0x80;
            assert_eq!(bob.open_into(&nonce, &tag, &damaged, &mut copy), Err(BadBox));
        }
        bob.open_in_place(&nonce, &tag, &mut sealed).unwrap();
        assert_eq!(sealed, plain);
    }
    assert!(
        C::new(&[0u8; 32], &ALICE_SECRET).is_err(),
        "a low-order key is refused"
    );
    let mut one = [0u8; 32];
    one[0] = 1;
    assert!(C::new(&one, &ALICE_SECRET).is_err(), "a low-order key is refused");
}

#[test]
fn the_chosen_cipher_seals_and_opens() {
    check::<Cipher>();
}

#[cfg(all(feature = "fast-crypto", feature = "audited-crypto"))]
mod both {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fast_cipher_seals_and_opens() {
        check::<fast::FastCipher>();
    }

    proptest! {
        #[test]
        fn the_two_ciphers_agree(
            secret in any::<[u8; 32]>(),
            other in any::<[u8; 32]>(),
            nonce in any::<[u8; 24]>(),
            plain in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let public = audited::AuditedCipher::public_key(&other);
            prop_assert_eq!(public, fast::FastCipher::public_key(&other));
            let one = audited::AuditedCipher::new(&public, &secret).ok().unwrap();
            let two = fast::FastCipher::new(&public, &secret).ok().unwrap();
            let (mut a, mut b) = (plain.clone(), plain);
            prop_assert_eq!(one.seal_in_place(&nonce, &mut a), two.seal_in_place(&nonce, &mut b));
            prop_assert_eq!(a, b);
        }
    }
}
