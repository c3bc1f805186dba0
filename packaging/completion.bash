# Bash completion for openclaw-gateway(8); completion-openclaw.bash has it for openclaw(1). Verbs and
# options come from --help, so that there is no list here to go stale.

_openclaw_gateway()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local -a command=("${COMP_WORDS[0]}")
    local first=1 verb= words

    COMPREPLY=()
    if [[ ${COMP_WORDS[0]##*/} == openclaw ]]; then
        if ((COMP_CWORD == 1)); then
            COMPREPLY=($(compgen -W gateway -- "$cur"))
            return
        fi
        [[ ${COMP_WORDS[1]} == gateway ]] || return
        command+=(gateway)
        first=2
    fi

    case $prev in
        --config | --token-file | --password-file)
            compopt -o filenames
            COMPREPLY=($(compgen -f -- "$cur"))
            return
            ;;
        --state-dir)
            compopt -o filenames
            COMPREPLY=($(compgen -d -- "$cur"))
            return
            ;;
        --bind | --auth)
            # The help has "--bind loopback|lan|…".
            words=$("${command[@]}" "${COMP_WORDS[first]/#-*/run}" --help 2>/dev/null |
                sed -nE "s/^  $prev ([a-z|-]+).*/\1/p" | tr '|' ' ')
            ;;
        --log-level | --priority | -p) words='error warning notice info debug' ;;
        --port | --host | --profile | --*-timeout) return ;;
        *)
            if ((COMP_CWORD > first)) && [[ ${COMP_WORDS[first]} != -* ]]; then
                verb=${COMP_WORDS[first]}
            fi
            if [[ $cur == -* ]]; then
                ((COMP_CWORD == first)) || verb=${verb:-run}
                words=$("${command[@]}" $verb --help 2>/dev/null | grep -oE -- '(^|[[:space:][,])--?[a-z][a-z-]*' |
                    grep -oE -- '--[a-z-]+')
            elif ((COMP_CWORD == first)); then
                # argparse lists verbs by four spaces and a name.
                words=$("${command[@]}" --help 2>/dev/null | sed -nE 's/^    ([a-z][a-z-]*)( .*)?$/\1/p')
            fi
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
} && complete -F _openclaw_gateway openclaw-gateway
