# frozen_string_literal: true

module SidekiqFlow::Web
  # Values as text; pages escape it.
  module Text
    # Steps that the label of a repeated branch names.
    MOST_NAMED = 10

    module_function

    def number(value)
      value.to_s.gsub(/\B(?=(\d{3})+\z)/, ",")
    end

    def duration(seconds)
      return "#{(seconds / 3600).to_i} h #{(seconds % 3600 / 60).to_i} min" if seconds >= 3600
      return "#{(seconds / 60).round} min" if seconds >= 600

      seconds < 100 ? format("%.3g s", seconds) : "#{seconds.round} s"
    end

    # A node in one line: "a > b" for a chain, "a | b" for a group.
    def label(node)
      case node.kind
      when :step then node.name
      when :delay then label(node.child)
      when :times then "#{label(node.child)} x #{number(node.times)}"
      else "(#{node.children.first(MOST_NAMED).map { |child| label(child) }.join(node.kind == :chain ? " > " : " | ")})"
      end
    end
  end
end
