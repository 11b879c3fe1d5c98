#!/bin/sh
# Builds the documents as a site by mdBook, into the folder that is given.
#
#     ops/site.sh target/book
#
# Links that leave docs/ lead to the sources on GitHub: the site has only the documents.
set -eu
cd "$(dirname "$0")/.."
target=$1
source=https://github.com/strandline/strandline/blob/main

mdbook build --dest-dir "$(realpath -m "$target")"
# A page of docs/ leaves it by one `..`, and one of docs/decisions/ by two. mdBook has changed the
# endings of documents.
for page in "$target"/*.html; do
    sed -i -E 's#href="\.\./([^"]*)\.html#href="'"$source"'/\1.md#g; s#href="\.\./#href="'"$source"'/#g' "$page"
done
for page in "$target"/decisions/*.html; do
    sed -i -E 's#href="\.\./\.\./([^"]*)\.html#href="'"$source"'/\1.md#g; s#href="\.\./\.\./#href="'"$source"'/#g' "$page"
done
