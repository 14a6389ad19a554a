# frozen_string_literal: true

module SidekiqFlow::Companion
  # Arguments of steps as Python shows them (repr and reprlib), so that the records of
  # runs look alike, whichever language starts the run.
  module PythonText
    # The longest text of the arguments of a step, and of a string or a number in it.
    MOST = 60

    # The most elements of an array or a hash, and the deepest level.
    MOST_ELEMENTS = 10
    LEVELS = 4

    # The most digits of a number that Python writes.
    MOST_DIGITS = 4300

    # What Python escapes: not printable, and not a space.
    ESCAPED = /[\p{C}\p{Z}\\&&[^ ]]/
    SHORT_ESCAPES = {"\\" => "\\\\", "\n" => "\\n", "\r" => "\\r", "\t" => "\\t"}.freeze

    # Raised for a number with too many digits.
    class TooLong < StandardError; end

    class << self
      # The arguments of a step, as text of at most 60 characters.
      def shown(args)
        parts = []
        length = 0
        args.each do |value|
          break if length > MOST

          parts << text(value)
          length += parts.last.length + 2
        end
        whole = parts.join(", ")
        (whole.length <= MOST) ? whole : "#{whole[0, MOST - 3]}..."
      end

      private

      def text(value)
        return quoted(value[0, MOST + 1]) if value.is_a?(String) && value.length > MOST

        shortened(value, LEVELS)
      rescue TooLong
        "<#{{Integer => "int", Array => "list", Hash => "dict"}.fetch(value.class)}>"
      end

      def shortened(value, level)
        case value
        when String then short_string(value)
        when Integer then short_integer(value)
        when Float then float(value)
        when Array then short_array(value, level)
        when Hash then short_hash(value, level)
        when true then "True"
        when false then "False"
        else "None"
        end
      end

      def short_string(value)
        text = quoted(value[0, MOST])
        return text if text.length <= MOST

        ends_of(quoted(value[0, 28] + value[[value.length - 29, 0].max..]))
      end

      def short_integer(value)
        text = value.to_s
        raise TooLong if text.delete("-").length > MOST_DIGITS

        (text.length <= MOST) ? text : ends_of(text)
      end

      # Ruby begins to write exponents one digit before Python does.
      def float(value)
        text = value.to_s
        sign, whole, fraction = text.match(/\A(-?)(\d)\.(\d+)e\+15\z/)&.captures
        return text.sub(".0e", "e") if whole.nil?

        digits = (whole + fraction).ljust(17, "0")
        "#{sign}#{digits[0, 16]}.#{digits[16..]}"
      end

      def short_array(value, level)
        return "[...]" if level <= 0 && value.any?

        parts = value.first(MOST_ELEMENTS).map { |each| shortened(each, level - 1) }
        parts << "..." if value.size > MOST_ELEMENTS
        "[#{parts.join(", ")}]"
      end

      def short_hash(value, level)
        return "{}" if value.empty?
        return "{...}" if level <= 0

        parts = value.keys.sort.first(MOST_ELEMENTS).map do |key|
          "#{shortened(key, level - 1)}: #{shortened(value[key], level - 1)}"
        end
        parts << "..." if value.size > MOST_ELEMENTS
        "{#{parts.join(", ")}}"
      end

      def ends_of(text)
        "#{text[0, 28]}...#{text[-29..]}"
      end

      # As Python's repr of a string.
      def quoted(value)
        quote = (value.include?("'") && !value.include?('"')) ? '"' : "'"
        text = value.gsub(ESCAPED) { |char| escaped(char) }
        text = text.gsub("'") { "\\'" } if quote == "'"
        "#{quote}#{text}#{quote}"
      end

      def escaped(char)
        SHORT_ESCAPES.fetch(char) do
          code = char.ord
          next format("\\x%02x", code) if code < 0x100

          format((code < 0x10000) ? "\\u%04x" : "\\U%08x", code)
        end
      end
    end
  end
end
