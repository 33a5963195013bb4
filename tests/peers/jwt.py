#!/usr/bin/env python3
"""Prints keys and tokens as another implementation makes them (joserfc, over pyca/cryptography): shared/service/src/access/jwt/others.json, which the tests beside it read.

    pip install joserfc && tests/peers/jwt.py > shared/service/src/access/jwt/others.json

The private keys are made for this and thrown away, so no two runs print the same.
"""

import json

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

ALGORITHMS = {"RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa", "PS512": "rsa", "ES256": "p256", "ES384": "p384", "EdDSA": "ed"}
# Until 2100.
CLAIMS = {"iss": "https://id.example.com", "aud": "tailspan", "sub": "ada", "iat": 1760000000, "exp": 4102444800, "tenant": "team-a", "scope": "openid read"}


def main():
    keys = {
        "rsa": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
        "p256": ECKey.generate_key("P-256", {"kid": "p256", "use": "sig", "alg": "ES256"}),
        "p384": ECKey.generate_key("P-384", {"kid": "p384", "key_ops": ["verify", "sign"]}),
        "ed": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
        # What issuers have beside them.
        "other": ECKey.generate_key("secp256k1", {"kid": "other"}),
        "p521": ECKey.generate_key("P-521", {"kid": "p521"}),
        "secret": OctKey.generate_key(256, {"kid": "secret"}),
    }
    tokens = {name: jwt.encode({"alg": name, "kid": key, "typ": "JWT"}, CLAIMS, keys[key], algorithms=[name]) for name, key in ALGORITHMS.items()}
    tokens["ES512"] = jwt.encode({"alg": "ES512", "kid": "p521"}, CLAIMS, keys["p521"], algorithms=["ES512"])
    tokens["HS256"] = jwt.encode({"alg": "HS256", "kid": "secret"}, CLAIMS, keys["secret"], algorithms=["HS256"])
    # The public key of RSA as a shared secret, in the forms in which servers have it.
    for form in ("PEM", "DER"):
        secret = OctKey.import_key(keys["rsa"].as_bytes(form, private=False))
        tokens[f"HS256 with the public key ({form.lower()})"] = jwt.encode({"alg": "HS256", "kid": "rsa"}, CLAIMS, secret, algorithms=["HS256"])
    public = [key.as_dict(private=False) for name, key in keys.items() if name != "secret"] + [keys["secret"].as_dict()]
    print(json.dumps({"keys": {"keys": public}, "tokens": tokens}, indent=1))


if __name__ == "__main__":
    main()
