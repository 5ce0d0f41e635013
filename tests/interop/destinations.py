"""SAP's SDK for Python, in a folder with binding.json: destinations.py NAME CODE REDIRECT-URI VERIFIER.

Calls a destination's target with the token that it comes with, and prints the token.
"""

import json
import os
import sys

from sap_cloud_sdk.destination import ConsumptionLevel, ConsumptionOptions, DestinationHttpClient, create_client

name, code, redirect_uri, verifier = sys.argv[1:]
with open("binding.json") as file:
    binding = json.load(file)
os.environ.update({f"CLOUD_SDK_CFG_DESTINATION_DEFAULT_{name.upper()}": value for name, value in binding.items()})

client = create_client()
assert client.get_destination("nobody") is None

options = ConsumptionOptions(code=code, redirect_uri=redirect_uri, code_verifier=verifier)
found = client.get_destination(name, level=ConsumptionLevel.SUBACCOUNT, options=options)
(token,) = found.auth_tokens
assert not token.error, token.error
with DestinationHttpClient(found) as target:
    told = target.request("GET", "orders").json()
assert told["headers"]["authorization"] == f"Bearer {token.value}", told
print(token.value)
