# Bash completion for openclaw(1), which is openclaw-gateway(8) after the word "gateway".

. "${BASH_SOURCE[0]%/*}/openclaw-gateway" && complete -F _openclaw_gateway openclaw
