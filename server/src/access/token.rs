//! Tokens of terminals: JSON Web Tokens whose `sub` is the only user that the connection may act
//! as.
//!
//! A token has `sub`, `exp` and, in its header, `kid`, if there are several keys. `nbf`, `aud` and
//! `iss` are checked if they are there. The claims `create` and `join` are arrays of prefixes of
//! conversation ids, which add rights. Other claims are ignored.
//!
//! The library parses tokens and checks claims; signatures are checked by *ring*, which TLS uses
//! too, so that no second implementation of the same algorithms is linked.

use bytes::Bytes;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use ring::{hmac, signature};
use serde::Deserialize;

use super::settings::{TokenAlgorithm, TokenKeySettings, TokenSettings};

/// RFC 7518 asks for a key of at least the length of the hash.
const LEAST_SECRET_BYTES: usize = 32;

/// The difference that the clocks of issuer and server may have, for the start of a token.
const SKEW_MS: u64 = 60_000;

/// The longest user id.
const MOST_ID_BYTES: usize = 200;

/// What a terminal may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminalToken {
    /// The user that it acts as.
    pub user: Bytes,
    /// The id of the key that signed its token.
    pub key: String,
    /// When its token expires, Unix ms.
    pub expires_ms: u64,
    create: Vec<String>,
    join: Vec<String>,
}

impl TerminalToken {
    /// Whether it may create a conversation of this id.
    pub fn may_create(&self, conv: &[u8]) -> bool {
        self.create.iter().any(|prefix| conv.starts_with(prefix.as_bytes()))
    }

    /// Whether it may join a conversation of this id.
    pub fn may_join(&self, conv: &[u8]) -> bool {
        self.join.iter().any(|prefix| conv.starts_with(prefix.as_bytes()))
    }
}

/// The claims. The library refuses one that is missing by its name, after this was read.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    exp: f64,
    #[serde(default)]
    nbf: f64,
    #[serde(default)]
    create: Vec<String>,
    #[serde(default)]
    join: Vec<String>,
}

struct TokenKey {
    id: String,
    key: DecodingKey,
    validation: Validation,
}

/// The keys of tokens.
#[derive(Default)]
pub struct Tokens(Vec<TokenKey>);

impl Tokens {
    /// Reads the keys. The error names the key.
    pub fn new(settings: &TokenSettings) -> Result<Tokens, String> {
        // It is the same for all servers of a process.
        let _ = RING.install_default();
        let mut keys: Vec<TokenKey> = Vec::new();
        for one in &settings.keys {
            let named = |why: String| format!("tokens.keys '{}': {why}", one.id);
            if keys.iter().any(|known| known.id == one.id) {
                return Err(named("there are two keys of this id".into()));
            }
            let key = read_key(one).map_err(named)?;
            let validation = validation(one.algorithm, settings);
            keys.push(TokenKey { id: one.id.clone(), key, validation });
        }
        Ok(Tokens(keys))
    }

    /// Whether there are no keys, so that no token is valid.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a key of this id.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Checks a token. The error is a sentence.
    pub fn check(&self, token: &[u8], now_ms: u64) -> Result<TerminalToken, String> {
        let key = self.key_of(token)?;
        let claims: Claims = jsonwebtoken::decode(token, &key.key, &key.validation)
            .map_err(|error| described(&error))?
            .claims;
        if !is_id(claims.sub.as_bytes()) {
            return Err("its sub is not a user id".into());
        }
        let expires_ms = milliseconds(claims.exp);
        if expires_ms <= now_ms {
            return Err("it has expired".into());
        }
        if milliseconds(claims.nbf) > now_ms + SKEW_MS {
            return Err("it is not valid yet".into());
        }
        let Claims { sub, create, join, .. } = claims;
        Ok(TerminalToken { user: sub.into(), key: key.id.clone(), expires_ms, create, join })
    }

    fn key_of(&self, token: &[u8]) -> Result<&TokenKey, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| described(&error))?;
        match (header.kid, self.0.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err("its header has no kid, and there is not exactly one key".into()),
            (Some(id), keys) => keys
                .iter()
                .find(|key| key.id == id)
                .ok_or_else(|| "its kid names no key of this server".into()),
        }
    }
}

/// Whether a password can only be a token: three parts of base64url.
pub fn is_token(password: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        !part.is_empty()
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let mut parts = password.split(|byte| *byte == b'.');
    password.starts_with(b"ey") && parts.clone().count() == 3 && parts.all(is_part)
}

fn read_key(settings: &TokenKeySettings) -> Result<DecodingKey, String> {
    let text = match (&settings.key, &settings.key_file) {
        (Some(key), None) => key.reveal().to_owned(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?
            .trim_end()
            .to_owned(),
        _ => return Err("give it either key or key_file".into()),
    };
    match settings.algorithm {
        TokenAlgorithm::Hs256 if text.len() < LEAST_SECRET_BYTES => {
            Err(format!("a key for HS256 has at least {LEAST_SECRET_BYTES} bytes"))
        }
        TokenAlgorithm::Hs256 => {
            DecodingKey::from_secret(text.as_bytes()).map_err(|error| error.to_string())
        }
        TokenAlgorithm::EdDsa => DecodingKey::from_ed_pem(text.as_bytes())
            .map_err(|_| "a key for EdDSA is an Ed25519 public key in PEM".into()),
    }
}

fn validation(algorithm: TokenAlgorithm, settings: &TokenSettings) -> Validation {
    let mut validation = Validation::new(match algorithm {
        TokenAlgorithm::Hs256 => Algorithm::HS256,
        TokenAlgorithm::EdDsa => Algorithm::EdDSA,
    });
    let mut required = vec!["exp", "sub"];
    if let Some(audience) = &settings.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &settings.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    // Checked by the server's own clock.
    validation.validate_exp = false;
    validation
}

#[allow(clippy::cast_sign_loss, reason = "a negative time becomes 0")]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

fn is_id(id: &[u8]) -> bool {
    let allowed = |byte: &u8| *byte > 32 && *byte != 127 && !matches!(byte, b'{' | b'}');
    (1..=MOST_ID_BYTES).contains(&id.len()) && id.iter().all(allowed)
}

fn described(error: &Error) -> String {
    match error.kind() {
        ErrorKind::InvalidSignature => "its signature is wrong".into(),
        ErrorKind::InvalidAlgorithm => "it was signed by another algorithm than its key's".into(),
        ErrorKind::InvalidAudience => "its aud is not that of this server".into(),
        ErrorKind::InvalidIssuer => "its iss is not that of this server".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no {claim}"),
        _ => "it is malformed".into(),
    }
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_: &Algorithm, _: &EncodingKey| Err(Error::from(ErrorKind::InvalidAlgorithm)),
    verifier_factory: |algorithm: &Algorithm, key: &DecodingKey| {
        let key = key.try_get_as_bytes()?;
        Ok(match algorithm {
            Algorithm::HS256 => Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key))),
            Algorithm::EdDSA => Box::new(EdDsa(key.to_vec())),
            _ => return Err(Error::from(ErrorKind::InvalidAlgorithm)),
        })
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs256(hmac::Key);

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> Result<(), SignatureError> {
        hmac::verify(&self.0, message, tag).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

struct EdDsa(Vec<u8>);

impl Verifier<Vec<u8>> for EdDsa {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), SignatureError> {
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, &self.0);
        key.verify(message, signed).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for EdDsa {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;

    const SHARED: &str = "a shared key of at least thirty-two bytes";
    const NOW_MS: u64 = 1_700_000_000_000;

    fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let tag = BASE64_URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
        format!("{message}.{tag}").into_bytes()
    }

    fn shared(header: &Value, claims: &Value) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SHARED.as_bytes());
        signed(header, claims, |message| hmac::sign(&key, message).as_ref().to_vec())
    }

    fn key(id: &str, algorithm: TokenAlgorithm, key: &str) -> TokenKeySettings {
        TokenKeySettings { id: id.into(), algorithm, key: Some(key.into()), key_file: None }
    }

    fn tokens(keys: Vec<TokenKeySettings>) -> Tokens {
        Tokens::new(&TokenSettings { keys, ..TokenSettings::default() }).expect("they are keys")
    }

    fn claims() -> Value {
        json!({"sub": "ann", "exp": NOW_MS / 1000 + 60, "create": ["t1."], "team": 7})
    }

    #[test]
    fn a_token_of_either_algorithm_is_the_user_with_its_claims() {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).expect("a key");
        let head = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
        let der = [&head[..], pair.public_key().as_ref()].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64_STANDARD.encode(der)
        );
        let tokens = tokens(vec![
            key("old", TokenAlgorithm::Hs256, SHARED),
            key("new", TokenAlgorithm::EdDsa, &pem),
        ]);
        let old = shared(&json!({"alg": "HS256", "kid": "old"}), &claims());
        let new = signed(&json!({"alg": "EdDSA", "kid": "new"}), &claims(), |message| {
            pair.sign(message).as_ref().to_vec()
        });
        for token in [old, new] {
            assert!(is_token(&token));
            let terminal = tokens.check(&token, NOW_MS).expect("it is valid");
            assert_eq!((&terminal.user[..], terminal.expires_ms), (&b"ann"[..], NOW_MS + 60_000));
            assert!(terminal.may_create(b"t1.room") && !terminal.may_create(b"t2.room"));
            assert!(!terminal.may_join(b"t1.room"));
        }
    }

    #[test]
    fn tokens_that_are_not_valid_are_refused_with_the_reason() {
        let tokens = tokens(vec![key("k", TokenAlgorithm::Hs256, SHARED)]);
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            claims
        };
        let header = json!({"alg": "HS256"});
        let mut without_sub = claims();
        without_sub.as_object_mut().expect("a map").remove("sub");
        for (token, reason) in [
            (shared(&header, &with("exp", json!(NOW_MS / 1000))), "expired"),
            (shared(&header, &with("exp", json!(-5.5))), "exp"),
            (shared(&header, &with("exp", json!("soon"))), "malformed"),
            (shared(&header, &with("nbf", json!(NOW_MS / 1000 + 61))), "not valid yet"),
            (shared(&header, &with("sub", json!("a b"))), "sub"),
            (shared(&header, &with("sub", json!("x".repeat(201)))), "sub"),
            (shared(&header, &with("aud", json!("others"))), "aud"),
            (shared(&header, &with("create", json!("t1."))), "malformed"),
            (shared(&header, &without_sub), "sub"),
            (shared(&json!({"alg": "HS256", "kid": "other"}), &claims()), "kid"),
            (shared(&json!({"alg": "HS512"}), &claims()), "algorithm"),
            (shared(&json!({"alg": "EdDSA"}), &claims()), "algorithm"),
            (shared(&json!({"alg": "none"}), &claims()), "malformed"),
            (signed(&header, &claims(), |_| vec![0; 32]), "signature"),
            (signed(&header, &claims(), |_| Vec::new()), "signature"),
            (b"eyJ.e.x".to_vec(), "malformed"),
        ] {
            let error = tokens.check(&token, NOW_MS).expect_err(reason);
            assert!(error.contains(reason), "{error}, not {reason}");
        }
        assert!(tokens.check(&shared(&header, &claims()), NOW_MS).is_ok());
    }

    #[test]
    fn audience_and_issuer_are_required_if_they_are_set() {
        let keys = vec![key("k", TokenAlgorithm::Hs256, SHARED)];
        let (audience, issuer) = (Some("chat".to_owned()), Some("shop".to_owned()));
        let tokens = Tokens::new(&TokenSettings { keys, audience, issuer }).expect("a key");
        let mut claims = claims();
        let check = |claims: &Value| tokens.check(&shared(&json!({"alg": "HS256"}), claims), 0);
        assert!(check(&claims).is_err());
        claims["aud"] = json!(["mail", "chat"]);
        assert!(check(&claims).is_err());
        claims["iss"] = json!("shop");
        assert!(check(&claims).is_ok());
        claims["iss"] = json!("else");
        assert!(check(&claims).is_err());
    }

    #[test]
    fn keys_that_cannot_be_used_are_refused_by_name() {
        let mut both = key("both", TokenAlgorithm::Hs256, SHARED);
        both.key_file = Some("x".into());
        let mut missing = key("missing", TokenAlgorithm::Hs256, SHARED);
        (missing.key, missing.key_file) = (None, Some("/nonexistent/key".into()));
        for wrong in [
            key("short", TokenAlgorithm::Hs256, "short"),
            key("text", TokenAlgorithm::EdDsa, SHARED),
            both,
            missing,
        ] {
            let (id, keys) = (wrong.id.clone(), vec![wrong]);
            let settings = TokenSettings { keys, ..TokenSettings::default() };
            let error = Tokens::new(&settings).err().expect("it is refused");
            assert!(error.contains(&id) && !error.contains(SHARED), "{error}");
        }
        let twice = vec![key("k", TokenAlgorithm::Hs256, SHARED); 2];
        assert!(Tokens::new(&TokenSettings { keys: twice, ..TokenSettings::default() }).is_err());
        assert!(!is_token(b"secret") && !is_token(b"ey.e.") && !is_token(b"eyJ.x.y.z"));
    }
}
