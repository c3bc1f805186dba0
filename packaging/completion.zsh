#compdef openclaw-gateway
# Zsh completion for openclaw-gateway(8). Verbs, options and their values come from --help, so that there is
# no list here to go stale.

local cur=${words[CURRENT]} prev=${words[CURRENT-1]} verb=
local -a found

((CURRENT > 2)) && verb=run
((CURRENT > 2)) && [[ ${words[2]} != -* ]] && verb=${words[2]}
case $prev in
    --config | --token-file | --password-file)
        _files
        return
        ;;
    --state-dir)
        _files -/
        return
        ;;
    --log-level | --priority | -p) found=(error warning notice info debug) ;;
    --bind | --auth)
        # The help has "--bind loopback|lan|…".
        found=(${(s:|:)"$(${words[1]} $verb --help 2>/dev/null | sed -nE "s/^  $prev ([a-z|-]+).*/\1/p")"})
        ;;
    --port | --host | --profile | --*-timeout) return ;;
    *)
        if [[ $cur == -* ]]; then
            found=(${(f)"$(${words[1]} $verb --help 2>/dev/null |
                grep -oE -- '(^|[[:space:][,])--?[a-z][a-z-]*' | grep -oE -- '--[a-z-]+' | sort -u)"})
        elif ((CURRENT == 2)); then
            # argparse lists verbs by four spaces and a name.
            found=(${(f)"$(${words[1]} --help 2>/dev/null | sed -nE 's/^    ([a-z][a-z-]*)( .*)?$/\1/p')"})
        fi
        ;;
esac
compadd -a found
