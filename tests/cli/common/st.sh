# st.sh JSON N - a safetensors file on stdout: the length of the header, the header, N zero bytes.
n=${#1}
printf "\\x$(printf %02x $((n & 255)))\\x$(printf %02x $((n >> 8 & 255)))\\0\\0\\0\\0\\0\\0"
printf %s "$1"
head -c "$2" /dev/zero
