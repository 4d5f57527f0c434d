"""Judges documents by a JSON Schema: the texts on stdin, by the file named.

Prints a list: for each text what is wrong with it first, or null.
"""

import json
import sys

from jsonschema import Draft7Validator


def judge(validator, text):
    try:
        document = json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    found = (f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(document))
    return next(found, None)


with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft7Validator.check_schema(schema)
print(json.dumps([judge(Draft7Validator(schema), text) for text in json.load(sys.stdin)]))
